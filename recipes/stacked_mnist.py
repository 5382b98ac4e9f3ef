"""The discrete mode test: crippled discriminators on 1,000 kinds of images (Karras et al. 2018, Appendix E, Table 4).

Images are three handwritten digits in three color channels. The networks are those that Metz et al. (2017) made for
this: a small generator of transposed 3x3 convolutions, and a discriminator of three strided ones and a linear layer
with so few channels (K/2, and half of that, K/4) that training methods show how many kinds they lose.

The presets are columns of Table 4 for both:

* ``gan-...``: batch normalization in both networks, the non-saturating loss.
* ``wgan-gp-...``: the same networks with the loss of WGAN-GP. The paper says so, although batch normalization makes
  the slope at an image depend on the rest of its batch: it is the slope of the sum of all outputs that is penalized.
* ``our-norm-...``: in place of batch normalization equalized learning rates in both, and pixel norm in the generator.
* ``stddev-...``: minibatch standard deviation on top, a map before the linear layer. Of all places this one brings the
  discriminator back to its size as the paper says: 571 parameters for K/4, 557 without normalization, 573 with the map.

``python -m recipes.studies.stacked_mnist`` measures how many kinds are covered.

Differences from the papers, and what they leave open:

* The digits are 5,000 of MNIST, at 32x32 with a border.
* The paper gives no batch, rates or length. All methods have the batch, Adam and single update of D of ProGAN's own
  training (Appendix A.1), so that they differ in what their columns name alone; there is no drift term.
* Slope of the leaky ReLU, and ReLU before pixel norm, are ours.
* Samples are drawn from a moving average of G as in the rest of ProGAN's paper, with standing statistics if it has
  batch normalization.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from gan_blocks import (
    CrossReplicaBatchNorm2d,
    MinibatchStdDev,
    PixelNorm,
    bce_discriminator_loss,
    gradient_penalty,
    non_saturating_generator_loss,
    wasserstein_discriminator_loss,
    wasserstein_generator_loss,
)
from gan_blocks.engine import (
    AdamFields,
    DataOption,
    FakeBatch,
    PairBatch,
    Recipe,
    StepBatches,
    TrainingConfig,
    TrainingState,
    fake_images_of,
    require,
    require_positive,
    score_fake,
    score_separately,
    update_discriminator,
    update_generator,
)
from recipes.families.he_layers import he_scaled

__all__ = ["PRESETS", "RECIPE", "Config"]


@dataclass(frozen=True)
class Config(AdamFields, TrainingConfig):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""

    help_group: ClassVar[str] = "networks"

    data: DataOption = "stacked-mnist5k"
    image_channels: Literal[1, 3] = 3
    num_classes: int = 1
    """1: the networks have no classes; those of the data are taken as one."""
    latent_dim: int = 256
    """Dimension of z, which is normal."""
    generator_widths: tuple[int, ...] = (64, 32, 16, 8)
    """Channels of G at 4x4, 8x8, ... up to the resolution."""
    discriminator_widths: tuple[int, ...] = (2, 4, 8)
    """Channels of D's convolutions, each of which halves the resolution down to 4x4: 4 8 16 is K/2, 2 4 8 is K/4."""
    norm: Literal["batch", "equalized"] = "batch"
    """Batch normalization in both networks, or equalized learning rates in both and pixel norm in G."""
    minibatch_stddev: bool = False
    """Show D how much its batch varies, before its linear layer."""

    loss: Literal["non-saturating", "wasserstein"] = "non-saturating"
    """The plain GAN's, or WGAN-GP's."""
    gradient_coefficient: float = 10.0
    """Coefficient lambda of WGAN-GP's gradient penalty."""
    generator_lr: float = 1e-3
    discriminator_lr: float = 1e-3
    adam_beta2: float = 0.99
    discriminator_steps: int = 1
    ema_decay: float = 0.999
    """Decay of the moving average of G that samples are drawn from."""
    planned_steps: int = 40_000

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require(self, "num_classes", self.num_classes == 1, "1 (the networks have no classes)")
        require_positive(self, "latent_dim", "gradient_coefficient", "generator_widths")
        stages = len(self.generator_widths) - 1
        widths = self.discriminator_widths
        rule = f"{stages} numbers greater than 0, one less than of --generator-widths"
        require(self, "discriminator_widths", len(widths) == stages and min(widths) > 0, rule)
        rule = f"{4 * 2**stages}, which is 4 doubled once for each of --generator-widths but the first"
        require(self, "resolution", self.resolution == 4 * 2**stages, rule)


def gan_k4() -> Config:
    """The plain GAN with the smaller discriminator, K/4."""
    return Config()


def wgan_gp_k4() -> Config:
    """The same with the loss of WGAN-GP."""
    return replace(gan_k4(), loss="wasserstein")


def our_norm_k4() -> Config:
    """The same with the normalization of ProGAN's paper."""
    return replace(wgan_gp_k4(), norm="equalized")


def stddev_k4() -> Config:
    """The same with minibatch standard deviation."""
    return replace(our_norm_k4(), minibatch_stddev=True)


def _k2(config: Config) -> Config:
    """The larger discriminator."""
    return replace(config, discriminator_widths=(4, 8, 16))


PRESETS = {
    "gan-k4": gan_k4,
    "wgan-gp-k4": wgan_gp_k4,
    "our-norm-k4": our_norm_k4,
    "stddev-k4": stddev_k4,
    "gan-k2": lambda: _k2(gan_k4()),
    "wgan-gp-k2": lambda: _k2(wgan_gp_k4()),
    "our-norm-k2": lambda: _k2(our_norm_k4()),
    "stddev-k2": lambda: _k2(stddev_k4()),
}


class Generator(nn.Module):
    """G of Metz et al.: from z to images in [-1, 1].

    Shape:
        - z: ``(batch, latent_dim)``
        - labels: not used
        - returns: ``(batch, image_channels, resolution, resolution)``
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        equalized, widths = config.norm == "equalized", config.generator_widths
        scaled = partial(he_scaled, equalized=equalized)
        self.linear = scaled(nn.Linear(config.latent_dim, 16 * widths[0], bias=equalized), config.latent_dim)
        self.norm = _generator_norm(widths[0], equalized)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            conv = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1, bias=equalized)
            # With a stride of 2 a pixel meets a quarter of the 9 weights of each channel, on average.
            self.blocks.append(nn.Sequential(scaled(conv, before * 9 // 4), _generator_norm(after, equalized)))
        self.to_image = scaled(nn.Conv2d(widths[-1], config.image_channels, 3, padding=1), 9 * widths[-1], gain=1.0)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Generate one image for each row of ``z``."""
        x = self.norm(rearrange(self.linear(z), "b (c h w) -> b c h w", h=4, w=4))
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.to_image(x))


class Discriminator(nn.Module):
    """D of Metz et al.

    Shape:
        - images: ``(batch, image_channels, resolution, resolution)``
        - labels: not used
        - returns: ``(batch,)``
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        equalized, widths = config.norm == "equalized", config.discriminator_widths
        scaled = partial(he_scaled, equalized=equalized)
        self.blocks = nn.ModuleList()
        for before, after in zip((config.image_channels, *widths), widths, strict=False):
            conv = scaled(nn.Conv2d(before, after, 3, stride=2, padding=1, bias=equalized), 9 * before)
            # With statistics of the batch there is no buffer that a second call before the backward pass would change.
            norm = nn.Identity() if equalized else CrossReplicaBatchNorm2d(after, statistics="batch")
            self.blocks.append(nn.Sequential(conv, norm, nn.LeakyReLU(0.2)))
        self.statistics = MinibatchStdDev(group_size=4) if config.minibatch_stddev else nn.Identity()
        features = 16 * (widths[-1] + config.minibatch_stddev)
        self.linear = scaled(nn.Linear(features, 1), features, gain=1.0)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Score each image."""
        x = images
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.linear(rearrange(self.statistics(x), "b c h w -> b (c h w)"))
        return rearrange(logits, "b 1 -> b")


def _generator_norm(width: int, equalized: bool) -> nn.Module:
    """Normalization and activation in their order: the batch's before, a pixel's after it."""
    return (
        nn.Sequential(nn.ReLU(), PixelNorm()) if equalized else nn.Sequential(CrossReplicaBatchNorm2d(width), nn.ReLU())
    )


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    """One step: ``discriminator_steps`` updates of D, then one of G and of its average."""
    plain = config.loss == "non-saturating"

    def discriminator_loss(part: PairBatch) -> dict[str, Tensor]:
        fake_images = fake_images_of(state, part)
        # In one call, statistics across the batch would let real and generated images see each other.
        real_logits, fake_logits = score_separately(state, part, fake_images)
        if plain:
            return {"loss_d": bce_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)}
        loss = wasserstein_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
        penalty = gradient_penalty(
            partial(state.discriminator, labels=part.real_labels),
            real_images=part.real_images,
            fake_images=fake_images,
            coefficient=config.gradient_coefficient,
        )
        return {"loss_d": loss, "gradient_penalty": penalty}

    def generator_loss(fake: FakeBatch) -> dict[str, Tensor]:
        loss = non_saturating_generator_loss if plain else wasserstein_generator_loss
        return {"loss_g": loss(fake_logits=score_fake(state, fake))}

    of_d = update_discriminator(state, batches, config, discriminator_loss)
    return of_d | update_generator(state, batches, config, generator_loss)


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=Generator,
    build_discriminator=Discriminator,
    train_step=train_step,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
