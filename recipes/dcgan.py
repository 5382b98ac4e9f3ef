"""DC-GAN: networks of strided convolutions and batch normalization (Radford et al. 2015), and mode seeking on top.

The generator is a linear layer and a transposed convolution for each doubling, with batch normalization and ReLU
between them and tanh at the end. The discriminator mirrors it with leaky ReLU; its first layer has no batch
normalization. All weights start from N(0, 0.02). The loss is the non-saturating one. There are no classes.

``--mode-seeking 1`` is MSGAN (Mao et al. 2019): the generator is penalized where unlike latents give like images. The
presets ``msgan-...`` differ from those without in nothing else.

Differences from the papers:

* Filters are of 4x4, not 5x5, and the discriminator is the generator mirrored, which the paper says little about.
* The pairs of mode seeking are the halves of a micro-batch; its published code draws a second batch. Top-k training
  chooses samples for the adversarial loss, not pairs.
* Samples are drawn from a moving average of G with standing statistics, as in BigGAN.
* The presets at 32x32 have one stage less than the paper's network; those for digits and clothes are narrow.
"""

from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from gan_blocks import (
    CrossReplicaBatchNorm2d,
    bce_discriminator_loss,
    mode_seeking_penalty,
    non_saturating_generator_loss,
)
from gan_blocks.engine import (
    AdamFields,
    FakeBatch,
    LatentName,
    PairBatch,
    Recipe,
    StepBatches,
    TrainingState,
    UserError,
    fake_images_of,
    require,
    score_generated,
    score_separately,
    update_discriminator,
    update_generator,
)
from recipes.families.plain import PlainDiscriminator, PlainFields, PlainGenerator

__all__ = ["PRESETS", "RECIPE", "Config"]


@dataclass(frozen=True)
class Config(AdamFields, PlainFields):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""

    latent: LatentName = "uniform"
    """What z is drawn from; the paper's is uniform."""
    latent_dim: int = 100
    mode_seeking: float = 0.0
    """Weight of the mode-seeking term in G's loss; 0: none, MSGAN: 1."""

    generator_lr: float = 2e-4
    discriminator_lr: float = 2e-4
    adam_beta1: float = 0.5
    batch_size: int = 64
    discriminator_steps: int = 1

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require(self, "mode_seeking", self.mode_seeking >= 0, "at least 0")


def mnist5k_32() -> Config:
    """5,000 real handwritten digits, minutes on a laptop: the defaults of Config."""
    return Config()


def fashion_mnist_32() -> Config:
    """Fashion-MNIST with the networks for digits; needs the data of Debian's dataset-fashion-mnist."""
    return Config(data="fashion-mnist", planned_steps=3000)


def msgan_fashion_mnist_32() -> Config:
    """The same with mode seeking."""
    return replace(fashion_mnist_32(), mode_seeking=1.0)


def cifar10_32() -> Config:
    """CIFAR-10 without labels; give --data cifar10:PATH."""
    return Config(
        data="cifar10:data/cifar-10-binary.tar.gz",
        image_channels=3,
        widths=(512, 256, 128),
        batch_size=128,
        ema_decay=0.9999,
        ema_start=1000,
        planned_steps=100_000,
    )


def msgan_cifar10_32() -> Config:
    """The same with mode seeking."""
    return replace(cifar10_32(), mode_seeking=1.0)


def lsun_64() -> Config:
    """One LSUN category at 64x64: the generator of the paper's Figure 1; give --data folder:PATH."""
    return replace(cifar10_32(), data="folder:data/lsun", resolution=64, widths=(1024, 512, 256, 128))


PRESETS = {
    "mnist5k-32": mnist5k_32,
    "fashion-mnist-32": fashion_mnist_32,
    "msgan-fashion-mnist-32": msgan_fashion_mnist_32,
    "cifar10-32": cifar10_32,
    "msgan-cifar10-32": msgan_cifar10_32,
    "lsun-64": lsun_64,
}


def build_discriminator(config: Config) -> PlainDiscriminator:
    """D with fresh weights from the global random state."""
    # With statistics of the batch there is no buffer, which a second call before the backward pass would change.
    return PlainDiscriminator(config, norm_layer=partial(CrossReplicaBatchNorm2d, statistics="batch"))


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    """One step: ``discriminator_steps`` updates of D, then one of G and of its average."""

    def discriminator_loss(part: PairBatch) -> dict[str, Tensor]:
        # In one call, batch norm would let real and generated images see each other.
        real_logits, fake_logits = score_separately(state, part, fake_images_of(state, part))
        return {"loss_d": bce_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)}

    def generator_loss(fake: FakeBatch) -> dict[str, Tensor]:
        images = state.generator(fake.z, fake.labels)
        terms = {"loss_g": non_saturating_generator_loss(fake_logits=score_generated(state, fake, images))}
        if config.mode_seeking > 0:
            pairs = mode_seeking_penalty(fake_images=_halves(images), z=_halves(fake.z))
            terms["mode_seeking_penalty"] = config.mode_seeking * pairs
        return terms

    of_d = update_discriminator(state, batches, config, discriminator_loss)
    return of_d | update_generator(state, batches, config, generator_loss)


def _halves(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Two halves of a batch, whose samples are pairs; one is left over where their number is odd.

    Raises:
        UserError: If there is no pair.
    """
    count = len(batch) // 2
    if count == 0:
        raise UserError("--mode-seeking needs pairs: micro-batches of at least 2 samples in each process.")
    return batch[:count], batch[count : 2 * count]


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=PlainGenerator,
    build_discriminator=build_discriminator,
    train_step=train_step,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
