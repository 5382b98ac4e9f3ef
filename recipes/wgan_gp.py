"""WGAN-GP: a critic that estimates the Wasserstein distance, held to slopes of one (Gulrajani et al. 2017).

The discriminator is a critic, whose outputs have no meaning but their difference. It is updated five times for each
update of the generator, and its slope is held near one on the lines between pairs of a real and a generated image, each
with one mix of its own. The networks are DC-GAN's, the critic without batch normalization, with which the slope at a
sample would not be its own. There are no classes.

``--constraint weight-clipping --optimizer rmsprop`` is the first Wasserstein GAN (Arjovsky et al. 2017): no penalty,
but all parameters of the critic are clipped to a small interval after each of its updates. The presets
``clipping-...`` have its rates, too.

Differences from the papers:

* The networks are DC-GAN's, with its initialization, not residual ones; filters are of 4x4.
* The critic of weight clipping has no batch normalization either, so the two differ only in the constraint.
* Samples are drawn from a moving average of G with standing statistics, as in BigGAN.
* The presets for digits and clothes are ours.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor, nn, optim

from gan_blocks import (
    clip_weights_,
    gradient_penalty,
    wasserstein_discriminator_loss,
    wasserstein_generator_loss,
)
from gan_blocks.engine import (
    AdamFields,
    FakeBatch,
    PairBatch,
    Recipe,
    StepBatches,
    TrainingState,
    adam_optimizers,
    fake_images_of,
    require_positive,
    score_fake,
    score_separately,
    update_discriminator,
    update_generator,
)
from recipes.families.plain import PlainDiscriminator, PlainFields, PlainGenerator

__all__ = ["PRESETS", "RECIPE", "Config"]


@dataclass(frozen=True)
class Config(AdamFields, PlainFields):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""

    constraint: Literal["gradient-penalty", "weight-clipping"] = "gradient-penalty"
    """What bounds the slope of the critic."""
    gradient_coefficient: float = 10.0
    """Coefficient lambda of the gradient penalty."""
    clip_bound: float = 0.01
    """Bound of each parameter of the critic under weight clipping."""

    optimizer: Literal["adam", "rmsprop"] = "adam"
    """Adam, or RMSprop, which has no use for the two Adam options."""
    generator_lr: float = 1e-4
    discriminator_lr: float = 1e-4
    adam_beta2: float = 0.9
    batch_size: int = 64
    discriminator_steps: int = 5

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "gradient_coefficient", "clip_bound")


def mnist5k_32() -> Config:
    """5,000 real handwritten digits, minutes on a laptop: the defaults of Config."""
    return Config()


def fashion_mnist_32() -> Config:
    """Fashion-MNIST with the networks for digits; needs the data of Debian's dataset-fashion-mnist."""
    return Config(data="fashion-mnist")


def clipping_fashion_mnist_32() -> Config:
    """The same with weight clipping and its rates."""
    return _clipped(fashion_mnist_32())


def cifar10_32() -> Config:
    """CIFAR-10 without labels; give --data cifar10:PATH."""
    return Config(
        data="cifar10:data/cifar-10-binary.tar.gz",
        image_channels=3,
        widths=(512, 256, 128),
        ema_decay=0.9999,
        ema_start=1000,
        planned_steps=200_000,
    )


def clipping_cifar10_32() -> Config:
    """The same with weight clipping and its rates."""
    return _clipped(cifar10_32())


def _clipped(config: Config) -> Config:
    return replace(config, constraint="weight-clipping", optimizer="rmsprop", generator_lr=5e-5, discriminator_lr=5e-5)


PRESETS = {
    "mnist5k-32": mnist5k_32,
    "fashion-mnist-32": fashion_mnist_32,
    "clipping-fashion-mnist-32": clipping_fashion_mnist_32,
    "cifar10-32": cifar10_32,
    "clipping-cifar10-32": clipping_cifar10_32,
}


def build_discriminator(config: Config) -> PlainDiscriminator:
    """The critic with fresh weights from the global random state."""
    return PlainDiscriminator(config, norm_layer=nn.Identity)


def build_optimizers(
    config: Config, generator: nn.Module, discriminator: nn.Module
) -> tuple[optim.Optimizer, optim.Optimizer]:
    """Adam or RMSprop for both networks."""
    if config.optimizer == "adam":
        return adam_optimizers(config, generator, discriminator)
    return (
        optim.RMSprop(generator.parameters(), lr=config.generator_lr),
        optim.RMSprop(discriminator.parameters(), lr=config.discriminator_lr),
    )


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    """One step: ``discriminator_steps`` updates of the critic, then one of G and of its average."""
    clipping = config.constraint == "weight-clipping"

    def critic_loss(part: PairBatch) -> dict[str, Tensor]:
        fake_images = fake_images_of(state, part)
        real_logits, fake_logits = score_separately(state, part, fake_images)
        loss = wasserstein_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
        if clipping:
            return {"loss_d": loss}
        penalty = gradient_penalty(
            partial(state.discriminator, labels=part.real_labels),
            real_images=part.real_images,
            fake_images=fake_images,
            coefficient=config.gradient_coefficient,
        )
        return {"loss_d": loss, "gradient_penalty": penalty}

    def generator_loss(fake: FakeBatch) -> dict[str, Tensor]:
        return {"loss_g": wasserstein_generator_loss(fake_logits=score_fake(state, fake))}

    clip = partial(clip_weights_, bound=config.clip_bound) if clipping else None
    of_critic = update_discriminator(state, batches, config, critic_loss, after_step=clip)
    return of_critic | update_generator(state, batches, config, generator_loss)


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=PlainGenerator,
    build_discriminator=build_discriminator,
    train_step=train_step,
    build_optimizers=build_optimizers,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
