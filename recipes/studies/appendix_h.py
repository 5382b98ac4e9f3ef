"""BigGAN with what its paper tried and gave up: Appendix H, and the limits on singular values of section 4.

Each option says what the paper saw of it; with all of them at their defaults this is recipes.biggan. The paper warns
that a negative result may only mean that a technique did not help when applied in one way to one problem, theirs being
ImageNet at 128x128 with batches of 2,048.

Where the paper leaves something open:

* Batch normalization in D stands before each activation of its blocks, over real and generated images together. Of the
  two kinds that the paper tried, class-conditional and unconditional, this is the latter.
* A class embedding that both networks share is G's, and learned only by G's loss.
* L2 takes all parameters of D, as the optimizer sees them.

Tested in ``tests/recipes/studies/test_appendix_h.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from gan_blocks import (
    CrossReplicaBatchNorm2d,
    FiLM2d,
    ProjectedEmbedding,
    ResidualDiscriminatorBlock,
    ResidualGeneratorBlock,
    SharedEmbedding,
    hinge_discriminator_loss,
    hinge_generator_loss,
    off_diagonal_penalty,
    orthogonal_penalty,
    upsample_bilinear,
    upsample_nearest,
)
from gan_blocks.engine import (
    FakeBatch,
    PairBatch,
    Recipe,
    StepBatches,
    TrainingState,
    require,
    score_fake,
    update_discriminator,
    update_generator,
)
from recipes import biggan
from recipes.biggan import EPS
from recipes.families.layers import LayerFactories
from recipes.families.regularization import embedding_norms, orthogonal_term, score_pair_with_r1
from recipes.families.residual import ResidualDiscriminator
from recipes.studies.appendix_h_fields import NetworkFields, RegularizerFields
from recipes.studies.presets import extended_presets
from recipes.studies.singular_values import SpectralFields, limited_layers, sigma_penalty

__all__ = ["PRESETS", "RECIPE", "Config"]


@dataclass(frozen=True)
class Config(SpectralFields, RegularizerFields, NetworkFields, biggan.Config):
    """BigGAN's, and what may be varied."""

    help_group: ClassVar[str] = "networks"

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        for field in ("generator_sigma_clamp", "generator_sigma_clamp_ratio", "generator_sigma_penalty"):
            spectral = self.generator_norm != "weight" or getattr(self, field) == 0
            require(self, field, spectral, "0 with --generator-norm weight, which takes spectral norm out of G")
        mixed = self.discriminator_norm == "batch" and self.r1_penalty > 0
        rule = "0 with --discriminator-norm batch, since the slope at one image is then not its own"
        require(self, "r1_penalty", not mixed, rule)
        used = self.generator_orthogonal_penalty or self.discriminator_orthogonal_penalty
        unused = "3 without --generator-orthogonal-penalty or --discriminator-orthogonal-penalty"
        require(self, "orthogonal_equation", self.orthogonal_equation == 3 or used > 0, unused)


PRESETS = extended_presets(Config, biggan.PRESETS)


class Generator(biggan.Generator):
    """BigGAN's G with the Config's filters, upsampling, depth, norm and projections; shapes as there."""

    def __init__(self, config: Config) -> None:
        by_length, by_batch = config.generator_norm == "weight", config.generator_norm == "batch"
        # Weight norm is that of Salimans and Kingma 2016.
        layers = LayerFactories(weight_norm) if by_length else limited_layers("generator", config, eps=EPS)

        def perceptron(in_features: int, out_features: int, bias: bool) -> nn.Module:
            hidden = layers.linear(in_features, config.embedding_hidden)
            return nn.Sequential(hidden, nn.ReLU(), layers.linear(config.embedding_hidden, out_features, bias))

        super().__init__(
            config,
            layers=layers,
            norm_layer=partial(
                biggan.conditional_norm(config) if by_batch else FiLM2d,
                linear_layer=perceptron if config.embedding_hidden else layers.linear,
            ),
            last_norm_layer=biggan.last_norm(config) if by_batch else nn.Identity,
            block_layer=partial(
                stage,
                config.blocks_per_stage,
                partial(
                    ResidualGeneratorBlock,
                    resample=upsample_bilinear if config.upsampling == "bilinear" else upsample_nearest,
                    kernel_size=config.generator_kernel_size,
                    dilation=config.generator_dilation,
                ),
            ),
        )


class Discriminator(ResidualDiscriminator):
    """BigGAN's D with the Config's filters, depth, norm, dropout and class embedding; shapes as there."""

    def __init__(self, config: Config) -> None:
        layers = limited_layers("discriminator", config, eps=EPS)
        # With statistics of the batch there is no buffer, which a second call before the backward pass would change.
        batch_norm = partial(CrossReplicaBatchNorm2d, statistics="batch")
        super().__init__(
            config,
            layers=layers,
            block_layer=partial(
                stage,
                config.blocks_per_stage,
                partial(
                    ResidualDiscriminatorBlock,
                    norm_layer=batch_norm if config.discriminator_norm == "batch" else nn.Identity,
                    kernel_size=config.discriminator_kernel_size,
                    dilation=config.discriminator_dilation,
                ),
            ),
        )
        self.dropout = nn.Dropout(config.discriminator_dropout)
        if config.share_embedding:
            self.head.embedding = ProjectedEmbedding(
                config.num_classes, config.embedding_dim, self.head.in_features, linear_layer=layers.linear
            )

    def features(self, images: Tensor) -> Tensor:
        """What the head sees of each image, ``(batch, features)``."""
        return self.dropout(super().features(images))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Several blocks at one resolution, which are told the same condition."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Pass ``x`` through all of them."""
        for block in self.blocks:
            x = block(x, *condition)
        return x


def stage(
    count: int, block_layer: Callable[..., nn.Module], in_channels: int, out_channels: int, **options: object
) -> nn.Module:
    """A block, and if it changes the resolution ``count - 1`` more, which keep width and height."""
    first = block_layer(in_channels, out_channels, **options)
    if count == 1 or not (options.get("upsample") or options.get("downsample")):
        return first
    kept = {name: value for name, value in options.items() if name not in ("upsample", "downsample", "preactivation")}
    return Stage([first, *(block_layer(out_channels, out_channels, **kept) for _ in range(1, count))])


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    """BigGAN's step with the Config's margin, penalties and clipping."""
    generator, discriminator = state.generator, state.discriminator
    if config.share_embedding:
        seen, shared = discriminator.get_submodule("head.embedding"), generator.get_submodule("embedding")
        assert isinstance(seen, ProjectedEmbedding)
        assert isinstance(shared, SharedEmbedding)
        seen.follow(shared)

    def discriminator_loss(part: PairBatch) -> dict[str, Tensor]:
        real_logits, fake_logits, r1 = score_pair_with_r1(state, part, config)
        loss = hinge_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits, margin=config.hinge_margin)
        return {"loss_d": loss, **r1}

    def generator_loss(fake: FakeBatch) -> dict[str, Tensor]:
        return {"loss_g": hinge_generator_loss(fake_logits=score_fake(state, fake))}

    of_weights_d = {
        "weight_penalty_d": partial(discriminator_penalty, discriminator, config),
        "sigma_penalty_d": partial(sigma_penalty, "discriminator", discriminator, config),
    }
    of_weights_g = {
        "weight_penalty_g": partial(generator_penalty, generator, config),
        "sigma_penalty_g": partial(sigma_penalty, "generator", generator, config),
    }
    clip = partial(clip_gradients, config=config)
    of_d = update_discriminator(state, batches, config, discriminator_loss, penalties=of_weights_d, before_step=clip)
    of_g = update_generator(state, batches, config, generator_loss, penalties=of_weights_g, before_step=clip)
    return of_d | of_g | embedding_norms(generator)


def generator_penalty(generator: nn.Module, config: Config) -> Tensor:
    """What G's loss has of its weights: orthogonal regularization, decay of the class embedding."""
    penalty = orthogonal_term(generator, config.generator_orthogonal_penalty, _equation(config))
    if config.embedding_weight_decay:
        squares = [
            module.weight.square().sum() for module in generator.modules() if isinstance(module, SharedEmbedding)
        ]
        penalty = penalty + config.embedding_weight_decay / 2 * torch.stack(squares).sum()
    return penalty


def discriminator_penalty(discriminator: nn.Module, config: Config) -> Tensor:
    """What D's loss has of its weights: orthogonal regularization, L2."""
    penalty = orthogonal_term(discriminator, config.discriminator_orthogonal_penalty, _equation(config))
    if config.discriminator_l2_penalty:
        squares = [parameter.square().sum() for parameter in discriminator.parameters()]
        penalty = penalty + config.discriminator_l2_penalty / 2 * torch.stack(squares).sum()
    return penalty


def _equation(config: Config) -> Callable[[Tensor], Tensor]:
    return off_diagonal_penalty if config.orthogonal_equation == 3 else orthogonal_penalty


def clip_gradients(network: nn.Module, config: Config) -> None:
    """Shorten the gradients of a network where the Config asks for that; for ``before_step=``."""
    if not config.gradient_clip:
        return
    parameters = list(network.parameters())
    groups = [parameters] if config.gradient_clip_scope == "network" else [[parameter] for parameter in parameters]
    for group in groups:
        nn.utils.clip_grad_norm_(group, config.gradient_clip)


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=Generator,
    build_discriminator=Discriminator,
    train_step=train_step,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
