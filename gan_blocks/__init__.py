"""Reusable GAN building blocks for PyTorch, by what they are for.

spectral: the largest singular values of weights: normalized, bounded, measured
    advance_power_iteration, cached_spectral_norm, clamp_sigma, estimated_singular_values,
    fold_spectral_norm, from_torch_spectral_norm, frozen_power_iteration, LayerSpectrum,
    sigma_regularization, SigmaClamp, SingularTriplets, spectral_norm, SpectralNorm,
    SpectrumMonitor, top_singular_triplets

layers: layers of one task, how weights start, and images larger or smaller
    AdaptiveGaussianNoise, BiasedActivation, conv2d_downsample, CrossReplicaBatchNorm2d,
    downsample_average, downsample_filtered, equalized_lr, EqualizedConv2d,
    EqualizedConvTranspose2d, EqualizedLearningRate, EqualizedLinear, fade_images, fade_in,
    init_orthogonal_, LearnedConstant2d, minibatch_stddev, MinibatchDiscrimination,
    MinibatchStdDev, pixel_norm, PixelNorm, SelfAttention2d, update_adaptive_noise,
    upsample_bilinear, upsample_conv2d, upsample_nearest

conditioning: how classes and z reach a network
    ClassConditionalBatchNorm2d, ConditionalBatchNorm2d, FiLM2d, FullSkipZ,
    HierarchicalSkipZ, NoSkipZ, ProjectedEmbedding, ProjectionHead, SharedEmbedding, SkipZ,
    UnconditionalHead

blocks: whole stages of networks, and factories of their layers
    BottleneckDiscriminatorBlock, BottleneckGeneratorBlock, fold_generator_blocks, FromRGB,
    normalize_layers, normalized_layer, PlainDiscriminatorBlock, PlainGeneratorBlock,
    ProgressiveDiscriminatorBlock, ProgressiveDiscriminatorHead, ProgressiveGeneratorBlock,
    ProgressiveGeneratorStem, ResidualDiscriminatorBlock, ResidualGeneratorBlock, ToRGB

latents: what z is drawn from, and its truncation
    AnnealedNormalPrior, BernoulliPrior, CategoricalPrior, CensoredNormalPrior,
    NormalBernoulliPrior, NormalPrior, Prior, RademacherPrior, SphericalPrior,
    SpikeAndSlabPrior, truncated_normal, truncated_prior, TruncatedNormalPrior,
    UniformPrior, VariableVariancePrior

losses: what both players minimize, penalties, and top-k training
    bce_discriminator_loss, bottom_k_mask, clip_weights_, distributed_top_k, drift_penalty,
    gradient_penalty, hinge_discriminator_loss, hinge_generator_loss, lazy_coefficient,
    least_squares_discriminator_loss, least_squares_generator_loss, minimax_generator_loss,
    mode_seeking_penalty, non_saturating_generator_loss, off_diagonal_penalty,
    orthogonal_penalty, orthogonal_regularization, r1_penalty, select_top_k,
    select_top_k_pairs, top_k_mask, TopKSchedule, TopKSelection, twice_differentiable,
    wasserstein_discriminator_loss, wasserstein_generator_loss, zero_centered_penalty

training: averages, schedules and statistics around a training step
    BatchNormTable, checkpoint_activations, collects_statistics, CollectsStatistics,
    cosine_ramp, ExponentialMovingAverage, gaussian_ramp, GrowthPosition, GrowthSchedule,
    half_life_decay, linear_ramp, standing_statistics, TruncatedBatchNormStatistics

metrics: how good samples are
    classifier_score, ClassifierScore, density_coverage, DensityCoverage,
    discrete_mode_coverage, DiscreteModeCoverage, FeatureMoments, frechet_distance,
    frechet_standard_error, kernel_distance, KernelDistance, laplacian_pyramid,
    mode_coverage, ModeCoverage, multiscale_ssim, nearest_neighbors, NearestNeighbors,
    neighborhood_members, neighborhood_radii, NeighborhoodMembers, precision_recall, PrecisionRecall, Rows,
    sliced_wasserstein_distance

Images are (batch, channels, height, width) in [-1, 1], labels int64, logits raw: larger is
more real. ``gan_blocks.engine`` trains what is built with these.
"""

from gan_blocks.blocks.bottleneck import BottleneckDiscriminatorBlock, BottleneckGeneratorBlock
from gan_blocks.blocks.folding import fold_generator_blocks
from gan_blocks.blocks.layer_factories import normalize_layers, normalized_layer
from gan_blocks.blocks.plain import PlainDiscriminatorBlock, PlainGeneratorBlock
from gan_blocks.blocks.progressive import (
    FromRGB,
    ProgressiveDiscriminatorBlock,
    ProgressiveDiscriminatorHead,
    ProgressiveGeneratorBlock,
    ProgressiveGeneratorStem,
    ToRGB,
)
from gan_blocks.blocks.residual import ResidualDiscriminatorBlock, ResidualGeneratorBlock
from gan_blocks.conditioning.batchnorm import ClassConditionalBatchNorm2d, ConditionalBatchNorm2d
from gan_blocks.conditioning.embedding import ProjectedEmbedding, SharedEmbedding
from gan_blocks.conditioning.modulation import FiLM2d
from gan_blocks.conditioning.projection import ProjectionHead, UnconditionalHead
from gan_blocks.conditioning.skip_z import FullSkipZ, HierarchicalSkipZ, NoSkipZ, SkipZ
from gan_blocks.latents.continuous_priors import CensoredNormalPrior, SphericalPrior, SpikeAndSlabPrior, UniformPrior
from gan_blocks.latents.discrete_priors import BernoulliPrior, CategoricalPrior, NormalBernoulliPrior, RademacherPrior
from gan_blocks.latents.priors import NormalPrior, Prior
from gan_blocks.latents.truncation import TruncatedNormalPrior, truncated_normal, truncated_prior
from gan_blocks.latents.varying_variance import AnnealedNormalPrior, VariableVariancePrior
from gan_blocks.layers.activation import BiasedActivation
from gan_blocks.layers.attention import SelfAttention2d
from gan_blocks.layers.batchnorm import CrossReplicaBatchNorm2d
from gan_blocks.layers.constant import LearnedConstant2d
from gan_blocks.layers.equalized import (
    EqualizedConv2d,
    EqualizedConvTranspose2d,
    EqualizedLearningRate,
    EqualizedLinear,
    equalized_lr,
)
from gan_blocks.layers.fused_resampling import conv2d_downsample, upsample_conv2d
from gan_blocks.layers.init import init_orthogonal_
from gan_blocks.layers.minibatch import MinibatchDiscrimination, MinibatchStdDev, minibatch_stddev
from gan_blocks.layers.noise import AdaptiveGaussianNoise, update_adaptive_noise
from gan_blocks.layers.normalization import PixelNorm, pixel_norm
from gan_blocks.layers.resampling import (
    downsample_average,
    downsample_filtered,
    fade_images,
    fade_in,
    upsample_bilinear,
    upsample_nearest,
)
from gan_blocks.losses.adversarial import (
    bce_discriminator_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    minimax_generator_loss,
    non_saturating_generator_loss,
    wasserstein_discriminator_loss,
    wasserstein_generator_loss,
)
from gan_blocks.losses.gradient_penalties import gradient_penalty, lazy_coefficient, r1_penalty, zero_centered_penalty
from gan_blocks.losses.mode_seeking import mode_seeking_penalty
from gan_blocks.losses.orthogonal import (
    off_diagonal_penalty,
    orthogonal_penalty,
    orthogonal_regularization,
)
from gan_blocks.losses.slopes import twice_differentiable
from gan_blocks.losses.top_k import bottom_k_mask, select_top_k, select_top_k_pairs, top_k_mask
from gan_blocks.losses.top_k_global import TopKSelection, distributed_top_k
from gan_blocks.losses.top_k_schedule import TopKSchedule
from gan_blocks.losses.wasserstein import clip_weights_, drift_penalty
from gan_blocks.metrics.feature_moments import FeatureMoments
from gan_blocks.metrics.frechet import frechet_distance
from gan_blocks.metrics.frechet_error import frechet_standard_error
from gan_blocks.metrics.kernel import KernelDistance, kernel_distance
from gan_blocks.metrics.mode_coverage import (
    DiscreteModeCoverage,
    ModeCoverage,
    discrete_mode_coverage,
    mode_coverage,
)
from gan_blocks.metrics.nearest import NearestNeighbors, Rows, nearest_neighbors
from gan_blocks.metrics.neighborhoods import (
    DensityCoverage,
    NeighborhoodMembers,
    PrecisionRecall,
    density_coverage,
    neighborhood_members,
    neighborhood_radii,
    precision_recall,
)
from gan_blocks.metrics.predictions import ClassifierScore, classifier_score
from gan_blocks.metrics.sliced_wasserstein import laplacian_pyramid, sliced_wasserstein_distance
from gan_blocks.metrics.structural_similarity import multiscale_ssim
from gan_blocks.spectral.advancing import advance_power_iteration, frozen_power_iteration
from gan_blocks.spectral.caching import cached_spectral_norm
from gan_blocks.spectral.clamping import SigmaClamp, clamp_sigma
from gan_blocks.spectral.monitor import LayerSpectrum, SpectrumMonitor
from gan_blocks.spectral.normalization import SpectralNorm, estimated_singular_values, fold_spectral_norm, spectral_norm
from gan_blocks.spectral.regularization import sigma_regularization
from gan_blocks.spectral.singular_values.arnoldi import SingularTriplets, top_singular_triplets
from gan_blocks.spectral.torch_layouts import from_torch_spectral_norm
from gan_blocks.training.activation_checkpointing import checkpoint_activations
from gan_blocks.training.ema import ExponentialMovingAverage
from gan_blocks.training.ramps import cosine_ramp, gaussian_ramp, half_life_decay, linear_ramp
from gan_blocks.training.schedules import GrowthPosition, GrowthSchedule
from gan_blocks.training.standing_statistics import CollectsStatistics, collects_statistics, standing_statistics
from gan_blocks.training.truncation_statistics import BatchNormTable, TruncatedBatchNormStatistics

__all__ = [
    "AdaptiveGaussianNoise",
    "AnnealedNormalPrior",
    "BatchNormTable",
    "BernoulliPrior",
    "BiasedActivation",
    "BottleneckDiscriminatorBlock",
    "BottleneckGeneratorBlock",
    "CategoricalPrior",
    "CensoredNormalPrior",
    "ClassConditionalBatchNorm2d",
    "ClassifierScore",
    "CollectsStatistics",
    "ConditionalBatchNorm2d",
    "CrossReplicaBatchNorm2d",
    "DensityCoverage",
    "DiscreteModeCoverage",
    "EqualizedConv2d",
    "EqualizedConvTranspose2d",
    "EqualizedLearningRate",
    "EqualizedLinear",
    "ExponentialMovingAverage",
    "FeatureMoments",
    "FiLM2d",
    "FromRGB",
    "FullSkipZ",
    "GrowthPosition",
    "GrowthSchedule",
    "HierarchicalSkipZ",
    "KernelDistance",
    "LayerSpectrum",
    "LearnedConstant2d",
    "MinibatchDiscrimination",
    "MinibatchStdDev",
    "ModeCoverage",
    "NearestNeighbors",
    "NeighborhoodMembers",
    "NoSkipZ",
    "NormalBernoulliPrior",
    "NormalPrior",
    "PixelNorm",
    "PlainDiscriminatorBlock",
    "PlainGeneratorBlock",
    "PrecisionRecall",
    "Prior",
    "ProgressiveDiscriminatorBlock",
    "ProgressiveDiscriminatorHead",
    "ProgressiveGeneratorBlock",
    "ProgressiveGeneratorStem",
    "ProjectedEmbedding",
    "ProjectionHead",
    "RademacherPrior",
    "ResidualDiscriminatorBlock",
    "ResidualGeneratorBlock",
    "Rows",
    "SelfAttention2d",
    "SharedEmbedding",
    "SigmaClamp",
    "SingularTriplets",
    "SkipZ",
    "SpectralNorm",
    "SpectrumMonitor",
    "SphericalPrior",
    "SpikeAndSlabPrior",
    "ToRGB",
    "TopKSchedule",
    "TopKSelection",
    "TruncatedBatchNormStatistics",
    "TruncatedNormalPrior",
    "UnconditionalHead",
    "UniformPrior",
    "VariableVariancePrior",
    "advance_power_iteration",
    "bce_discriminator_loss",
    "bottom_k_mask",
    "cached_spectral_norm",
    "checkpoint_activations",
    "clamp_sigma",
    "classifier_score",
    "clip_weights_",
    "collects_statistics",
    "conv2d_downsample",
    "cosine_ramp",
    "density_coverage",
    "discrete_mode_coverage",
    "distributed_top_k",
    "downsample_average",
    "downsample_filtered",
    "drift_penalty",
    "equalized_lr",
    "estimated_singular_values",
    "fade_images",
    "fade_in",
    "fold_generator_blocks",
    "fold_spectral_norm",
    "frechet_distance",
    "frechet_standard_error",
    "from_torch_spectral_norm",
    "frozen_power_iteration",
    "gaussian_ramp",
    "gradient_penalty",
    "half_life_decay",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "init_orthogonal_",
    "kernel_distance",
    "laplacian_pyramid",
    "lazy_coefficient",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "linear_ramp",
    "minibatch_stddev",
    "minimax_generator_loss",
    "mode_coverage",
    "mode_seeking_penalty",
    "multiscale_ssim",
    "nearest_neighbors",
    "neighborhood_members",
    "neighborhood_radii",
    "non_saturating_generator_loss",
    "normalize_layers",
    "normalized_layer",
    "off_diagonal_penalty",
    "orthogonal_penalty",
    "orthogonal_regularization",
    "pixel_norm",
    "precision_recall",
    "r1_penalty",
    "select_top_k",
    "select_top_k_pairs",
    "sigma_regularization",
    "sliced_wasserstein_distance",
    "spectral_norm",
    "standing_statistics",
    "top_k_mask",
    "top_singular_triplets",
    "truncated_normal",
    "truncated_prior",
    "twice_differentiable",
    "update_adaptive_noise",
    "upsample_bilinear",
    "upsample_conv2d",
    "upsample_nearest",
    "wasserstein_discriminator_loss",
    "wasserstein_generator_loss",
    "zero_centered_penalty",
]

__version__ = "0.1.0"
