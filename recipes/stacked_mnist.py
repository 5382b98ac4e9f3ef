"""The discrete mode test: crippled discriminators on 1,000 kinds of images (Karras et al. 2018, Appendix E, Table 4).

Images are three handwritten digits in three color channels. The discriminator has three convolutions and a linear
layer, with so few channels (K/2, and half of that, K/4) that training methods show how many kinds they lose.

The presets are columns of Table 4 for both:

* ``gan-...``: the networks of Metz et al. (2017) with batch normalization, the non-saturating loss.
* ``wgan-gp-...``: WGAN-GP with five updates of D, in ProGAN's own small networks with batch normalization. The slope at
  an image then depends on the rest of its batch: it is the slope of the sum of all outputs that is penalized.
* ``our-norm-...``: in place of batch normalization equalized learning rates in both, and pixel norm in the generator.
* ``stddev-...``: minibatch standard deviation on top, a map before the linear layer. Of all places this one brings the
  discriminator back to its size as the paper says: 571 parameters for K/4, 557 without normalization, 573 with the map.
* ``progression-...``: growing networks on top.

``python -m recipes.studies.stacked_mnist`` measures how many kinds are covered.

The paper names the networks of Metz et al. for its own columns, too; its published code has upsampling and pooling in
place of their strides, as here. What it leaves open is from that code: batches of 64, Adam with rates that rise over
the first 40,000 images, no drift term, 10 million images (15 million with growth). The column of the GAN is quoted
there from Metz et al.: its batch, rates and length here are ours.

Differences from the paper: the digits are 5,000 of MNIST, at 32x32 with a border; samples are drawn from a moving
average of G, with standing statistics where it has batch normalization.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor

from gan_blocks import (
    NormalPrior,
    Prior,
    SphericalPrior,
    bce_discriminator_loss,
    gradient_penalty,
    non_saturating_generator_loss,
    wasserstein_discriminator_loss,
    wasserstein_generator_loss,
)
from gan_blocks.engine import (
    DataOption,
    FakeBatch,
    PairBatch,
    Recipe,
    StepBatches,
    TrainingState,
    fake_images_of,
    require_positive,
    score_fake,
    update_discriminator,
    update_generator,
)
from recipes.families.growing import grow_networks, log_of_schedules, real_images_at
from recipes.families.mode_test import ModeTestFields, build_discriminator, build_generator

__all__ = ["PRESETS", "RECIPE", "Config"]


@dataclass(frozen=True)
class Config(ModeTestFields):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""

    help_group: ClassVar[str] = "regularizers"

    data: DataOption = "stacked-mnist5k"
    image_channels: Literal[1, 3] = 3
    initial_resolution: int = 0

    loss: Literal["wasserstein", "non-saturating"] = "wasserstein"
    """WGAN-GP's, or the plain GAN's."""
    gradient_coefficient: float = 10.0
    """Coefficient lambda of WGAN-GP's gradient penalty."""
    generator_lr: float = 1e-3
    discriminator_lr: float = 1e-3
    adam_beta2: float = 0.99
    rampup_images: int = 40_000
    batch_size: int = 64
    discriminator_steps: int = 5
    ema_decay: float = 0.999
    """Decay of the moving average of G that samples are drawn from."""
    ema_start: int = 0
    planned_steps: int = 31_250

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "gradient_coefficient")


def wgan_gp_k4() -> Config:
    """WGAN-GP with the smaller discriminator, K/4, and batch normalization."""
    return Config()


def our_norm_k4() -> Config:
    """The same with the normalization of ProGAN's paper."""
    return replace(wgan_gp_k4(), norm="equalized")


def stddev_k4() -> Config:
    """The same with minibatch standard deviation."""
    return replace(our_norm_k4(), minibatch_stddev=True)


def progression_k4() -> Config:
    """The same, growing from 4x4 pixels on."""
    config = replace(stddev_k4(), initial_resolution=4, stabilize_images=500_000, fade_images=2_000_000)
    return config.lasting(15_000_000)


def gan_k4() -> Config:
    """The plain GAN, in the networks of Metz et al., until its D has seen as many images."""
    config = Config(networks="metz", latent_dim=256, loss="non-saturating", discriminator_steps=1, rampup_images=0)
    return config.lasting(10_000_000)


def _k2(config: Config) -> Config:
    """The larger discriminator."""
    return replace(config, discriminator_widths=(4, 8, 16))


PRESETS: Mapping[str, Callable[[], Config]] = {
    "our-norm-k4": our_norm_k4,
    "gan-k4": gan_k4,
    "wgan-gp-k4": wgan_gp_k4,
    "stddev-k4": stddev_k4,
    "progression-k4": progression_k4,
    "our-norm-k2": lambda: _k2(our_norm_k4()),
    "gan-k2": lambda: _k2(gan_k4()),
    "wgan-gp-k2": lambda: _k2(wgan_gp_k4()),
    "stddev-k2": lambda: _k2(stddev_k4()),
    "progression-k2": lambda: _k2(progression_k4()),
}


def build_prior(config: Config) -> Prior:
    """What z is drawn from."""
    return (SphericalPrior if config.networks == "karras" else NormalPrior)(config.latent_dim)


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    """One step: grow, then ``discriminator_steps`` updates of D, then one of G and of its average."""
    position = grow_networks(state, config, batches.step) if config.grows else config.position(batches.step)
    plain = config.loss == "non-saturating"

    def discriminator_loss(part: PairBatch) -> dict[str, Tensor]:
        real_images = real_images_at(part.real_images, position.resolution, position.alpha)
        fake_images = fake_images_of(state, part)
        discriminator = partial(state.discriminator, labels=part.real_labels)
        # In one call, statistics across the batch would let real and generated images see each other.
        real_logits, fake_logits = discriminator(real_images), discriminator(fake_images)
        if plain:
            return {"loss_d": bce_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)}
        loss = wasserstein_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
        penalty = gradient_penalty(
            discriminator,
            real_images=real_images,
            fake_images=fake_images,
            coefficient=config.gradient_coefficient,
        )
        return {"loss_d": loss, "gradient_penalty": penalty}

    def generator_loss(fake: FakeBatch) -> dict[str, Tensor]:
        loss = non_saturating_generator_loss if plain else wasserstein_generator_loss
        return {"loss_g": loss(fake_logits=score_fake(state, fake))}

    losses = update_discriminator(state, batches, config, discriminator_loss)
    losses |= update_generator(state, batches, config, generator_loss)
    return losses | log_of_schedules(config, position)


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=build_generator,
    build_discriminator=build_discriminator,
    train_step=train_step,
    build_prior=build_prior,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
