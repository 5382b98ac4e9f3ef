"""Reusable GAN building blocks for PyTorch."""

from gan_blocks.conditioning.embedding import SharedEmbedding
from gan_blocks.conditioning.projection import ProjectionHead
from gan_blocks.conditioning.skip_z import FullSkipZ, HierarchicalSkipZ, SkipZ
from gan_blocks.latents.priors import NormalPrior, Prior
from gan_blocks.latents.truncation import truncated_normal
from gan_blocks.layers.batchnorm import BatchNorm2d
from gan_blocks.layers.init import orthogonal_
from gan_blocks.layers.resampling import downsample_average, upsample_nearest
from gan_blocks.losses.adversarial import hinge_discriminator_loss, hinge_generator_loss

__all__ = [
    "BatchNorm2d",
    "FullSkipZ",
    "HierarchicalSkipZ",
    "NormalPrior",
    "Prior",
    "ProjectionHead",
    "SharedEmbedding",
    "SkipZ",
    "downsample_average",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "orthogonal_",
    "truncated_normal",
    "upsample_nearest",
]

__version__ = "0.1.0"
