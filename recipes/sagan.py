"""SA-GAN, the baseline of BigGAN: each layer has class tables of its own (Zhang et al. 2018).

The first layer of the generator sees the whole latent vector, and nothing else does. The class sets gains and biases in
the batch normalization of the residual blocks, each of which has a table of them. The discriminator is BigGAN's. Both
are spectrally normalized and have a non-local block; the loss is the hinge loss.

Rows 1 to 5 of Table 1 and row 1 of Table 3 are presets here, the others in recipes.biggan. Row 1 is trained as Zhang et
al. did, rows 2 to 5 at half the rates with two updates of D.

Differences from the papers:

* The non-local block of G stands at 64x64 as in BigGAN, which is what the parameters in Table 1 were counted with.
* All weights start orthogonal, as in BigGAN's paper, and gains at 1 and biases at 0 for every class.
* Samples are drawn from a moving average of G with standing statistics, and epsilons are 1e-4, as in BigGAN's paper.
* The presets of digits are in no table of the papers.
"""

from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from gan_blocks import ClassConditionalBatchNorm2d, CrossReplicaBatchNorm2d
from gan_blocks.engine import Recipe
from recipes.families.hinge import HingeTrainingFields, hinge_train_step
from recipes.families.residual import ResidualDiscriminator, ResidualGenerator
from recipes.families.residual_config import ResidualFields
from recipes.families.spectral_layers import spectral_layers

__all__ = ["PRESETS", "RECIPE", "Config"]

EPS = 1e-4  # in spectral norm, and by default in BatchNorm (Appendix C)
LAYERS = spectral_layers(EPS)


@dataclass(frozen=True)
class Config(HingeTrainingFields, ResidualFields):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""


def mnist5k_32() -> Config:
    """5,000 real handwritten digits, minutes on a laptop: the defaults of Config."""
    return Config()


def fashion_mnist_32() -> Config:
    """Fashion-MNIST with the networks for digits; needs the data of Debian's dataset-fashion-mnist."""
    return Config(data="fashion-mnist", planned_steps=1800)


def mnist5k_16() -> Config:
    """The digits at half their size, for studies of many runs: a third of the time of a step."""
    return Config(
        resolution=16,
        generator_widths=(4, 4, 2),
        discriminator_widths=(2, 4, 4),
        generator_attention=(8,),
        discriminator_attention=(8,),
    )


def _table1(*, batch_size: int, channels: int = 64) -> Config:
    return Config(
        data="folder:data/imagenet-128",
        resolution=128,
        image_channels=3,
        num_classes=1000,
        channels=channels,
        generator_widths=(16, 16, 8, 4, 2, 1),
        discriminator_widths=(1, 2, 4, 8, 16, 16),
        generator_attention=(64,),
        discriminator_attention=(64,),
        latent_dim=128,
        batch_size=batch_size,
        discriminator_steps=2,
        generator_lr=5e-5,
        discriminator_lr=2e-4,
        ema_decay=0.9999,
        ema_start=0,
        standing_batches=100,
        planned_steps=1_000_000,
    )


def table1_row1() -> Config:
    """Row 1 of Table 1: SA-GAN as Zhang et al. trained it on ImageNet at 128x128; give --data folder:PATH."""
    config = _table1(batch_size=256)
    return replace(config, discriminator_steps=1, generator_lr=1e-4, discriminator_lr=4e-4, adam_beta2=0.9)


def table1_row2() -> Config:
    """Row 2 of Table 1: batches of 512, and from here on half the rates and two updates of D."""
    return _table1(batch_size=512)


def table1_row3() -> Config:
    """Row 3 of Table 1: batches of 1024."""
    return _table1(batch_size=1024)


def table1_row4() -> Config:
    """Row 4 of Table 1: batches of 2048."""
    return _table1(batch_size=2048)


def table1_row5() -> Config:
    """Row 5 of Table 1: half as many channels again."""
    return _table1(batch_size=2048, channels=96)


def top_k_imagenet_128() -> Config:
    """Table 4 of Sinha et al. 2020: row 1 with top-k training, whose gamma is 0.98 for a set so large."""
    return replace(table1_row1(), top_k_gamma=0.98)


def jft_256_baseline() -> Config:
    """Row 1 of Table 3: the baseline on JFT-300M at 256x256, of 18,291 labels as recipes.biggan says."""
    return replace(
        table1_row4(),
        data="folder:data/jft-300m",
        resolution=256,
        num_classes=18_291,
        generator_widths=(16, 16, 8, 8, 4, 2, 1),
        discriminator_widths=(1, 2, 4, 8, 8, 16, 16),
    )


PRESETS = {
    "mnist5k-32": mnist5k_32,
    "fashion-mnist-32": fashion_mnist_32,
    "mnist5k-16": mnist5k_16,
    "table1-row1": table1_row1,
    "table1-row2": table1_row2,
    "table1-row3": table1_row3,
    "table1-row4": table1_row4,
    "table1-row5": table1_row5,
    "jft-256-baseline": jft_256_baseline,
    "top-k-imagenet-128": top_k_imagenet_128,
}


class Generator(ResidualGenerator):
    """G of SA-GAN: from (z, class) to images in [-1, 1].

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
            layers=LAYERS,
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Generate one image for each row of ``z``."""
        return self.render(z, [labels] * len(self.blocks))


def build_discriminator(config: Config) -> nn.Module:
    """D, which is BigGAN's, with fresh weights from the global random state."""
    return ResidualDiscriminator(config, layers=LAYERS)


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=Generator,
    build_discriminator=build_discriminator,
    train_step=hinge_train_step,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
