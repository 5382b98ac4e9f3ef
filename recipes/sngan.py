"""SN-GAN: residual networks of which only the discriminator is spectrally normalized (Miyato et al. 2018).

The ReLU ResNets for CIFAR-10, with the projection discriminator and the class tables of the companion paper (Miyato and
Koyama 2018). The class sets gains and biases in the generator's batch normalization, z enters only its first layer.
The loss is the hinge loss, and the paper updates D five times for each update of G.

Differences from the papers:

* Weights start orthogonal, not uniform in Glorot's bounds, so recipes differ only in what their papers are about.
* Samples are drawn from a moving average of G with standing statistics, and epsilons are 1e-4, as in BigGAN.
* The presets for digits and clothes are ours.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from gan_blocks import (
    ClassConditionalBatchNorm2d,
    CrossReplicaBatchNorm2d,
    ResidualDiscriminatorBlock,
    hinge_discriminator_loss,
    hinge_generator_loss,
)
from gan_blocks.engine import (
    AdamFields,
    FakeBatch,
    PairBatch,
    Recipe,
    StepBatches,
    TrainingState,
    score_fake,
    score_pair,
    update_discriminator,
    update_generator,
)
from recipes.families.layers import LayerFactories
from recipes.families.residual import ResidualDiscriminator, ResidualGenerator
from recipes.families.residual_config import ResidualFields
from recipes.families.spectral_layers import spectral_layers

__all__ = ["PRESETS", "RECIPE", "Config"]

EPS = 1e-4  # in spectral norm, and by default in BatchNorm, as in the other recipes


@dataclass(frozen=True)
class Config(AdamFields, ResidualFields):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""

    help_group: ClassVar[str] = "networks"

    discriminator_hidden: Literal["output", "input"] = "output"
    """D's blocks are as wide inside as their output or input."""
    generator_spectral_norm: bool = False
    """Normalize the weights of G, too; BigGAN-PyTorch does."""


def mnist5k_32() -> Config:
    """5,000 real handwritten digits, minutes on a laptop: widths of a quarter, fewer updates of D, higher rates."""
    return Config(
        channels=16,
        generator_widths=(4, 4, 4, 4),
        discriminator_widths=(4, 4, 4, 4),
        discriminator_final_size=8,
        generator_attention=(),
        discriminator_attention=(),
        adam_beta2=0.9,
    )


def fashion_mnist_32() -> Config:
    """Fashion-MNIST with the networks for digits; needs the data of Debian's dataset-fashion-mnist."""
    return replace(mnist5k_32(), data="fashion-mnist", planned_steps=1800)


def cifar10_32() -> Config:
    """CIFAR-10 with the paper's networks and rates, but with classes; give --data cifar10:PATH."""
    return replace(
        mnist5k_32(),
        data="cifar10:data/cifar-10-binary.tar.gz",
        image_channels=3,
        channels=128,
        generator_widths=(2, 2, 2, 2),
        discriminator_widths=(1, 1, 1, 1),
        batch_size=64,
        discriminator_steps=5,
        generator_lr=2e-4,
        discriminator_lr=2e-4,
        ema_decay=0.9999,
        ema_start=1000,
        standing_batches=100,
        planned_steps=100_000,
    )


PRESETS = {"mnist5k-32": mnist5k_32, "fashion-mnist-32": fashion_mnist_32, "cifar10-32": cifar10_32}


class Generator(ResidualGenerator):
    """G of SN-GAN: from (z, class) to images in [-1, 1].

    Shape:
        - z: ``(batch, latent_dim)``
        - labels: ``(batch,)``, int64; or class weights ``(batch, num_classes)``, floating, to mix classes
        - returns: ``(batch, image_channels, resolution, resolution)``
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            config,
            stem_features=config.latent_dim,
            norm_layer=partial(ClassConditionalBatchNorm2d, num_classes=config.num_classes, eps=config.bn_eps),
            last_norm_layer=partial(CrossReplicaBatchNorm2d, eps=config.last_bn_eps),
            # In this paper only D has spectral norms.
            layers=spectral_layers(EPS) if config.generator_spectral_norm else LayerFactories(),
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Generate one image for each row of ``z``."""
        return self.render(z, [labels] * len(self.blocks))


def thin_block(in_channels: int, out_channels: int, **options: Any) -> ResidualDiscriminatorBlock:
    """D's block with as many channels between its convolutions as in its input."""
    return ResidualDiscriminatorBlock(in_channels, out_channels, hidden_channels=in_channels, **options)


def build_discriminator(config: Config) -> nn.Module:
    """D with fresh weights from the global random state."""
    block_layer = thin_block if config.discriminator_hidden == "input" else ResidualDiscriminatorBlock
    return ResidualDiscriminator(config, layers=spectral_layers(EPS), block_layer=block_layer)


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    """One step: ``discriminator_steps`` updates of D, then one of G and of its average."""

    def discriminator_loss(part: PairBatch) -> Tensor:
        real_logits, fake_logits = score_pair(state, part)
        return hinge_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)

    def generator_loss(fake: FakeBatch) -> Tensor:
        return hinge_generator_loss(fake_logits=score_fake(state, fake))

    loss_d = update_discriminator(state, batches, config, discriminator_loss)
    loss_g = update_generator(state, batches, config, generator_loss)
    return {"loss_d": loss_d, "loss_g": loss_g}


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=Generator,
    build_discriminator=build_discriminator,
    train_step=train_step,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
