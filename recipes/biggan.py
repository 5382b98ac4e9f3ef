"""BigGAN: class-conditional images from residual blocks that see chunks of z (Brock et al. 2018, Tables 1 and 4-6).

The generator cuts the latent vector into chunks: the first makes 4x4 pixels, each other one, beside an embedding of the
class that all blocks share, sets the gains and biases of one block's batch normalization. The discriminator sums the
features of its residual blocks over all pixels and compares them with an embedding of the class. Both have a non-local
block, are spectrally normalized, initialized orthogonally and trained with the hinge loss; samples are drawn from an
exponential moving average of the generator with standing statistics (Appendix C).

Rows 6 to 9 of Table 1 and 2 to 4 of Table 3 are presets here, the others in recipes.sagan.

What the paper tried beside this and gave up (Appendix H, section 4) is in recipes.studies.appendix_h.

Differences from the paper:

* The 32x32 presets are in no table of the paper: their widths and batches are ours.
* Tables 4-6 print 20 + 128 inputs of the first layer; the published parameter counts hold only for its chunk of 20.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from gan_blocks import (
    ConditionalBatchNorm2d,
    CrossReplicaBatchNorm2d,
    HierarchicalSkipZ,
    NoSkipZ,
    ResidualGeneratorBlock,
    SharedEmbedding,
    init_orthogonal_,
)
from gan_blocks.engine import Recipe, require, require_positive
from recipes.families.hinge import HingeTrainingFields, hinge_train_step
from recipes.families.layers import LayerFactories
from recipes.families.residual import ResidualDiscriminator, ResidualGenerator
from recipes.families.residual_config import ResidualFields
from recipes.families.spectral_layers import spectral_layers

__all__ = ["PRESETS", "RECIPE", "Config"]

EPS = 1e-4  # in spectral norm, and by default in BatchNorm (Appendix C)
LAYERS = spectral_layers(EPS)


@dataclass(frozen=True)
class Config(HingeTrainingFields, ResidualFields):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""

    help_group: ClassVar[str] = "networks"
    moved_fields: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "recipes.studies.appendix_h": {"embedding_hidden": 0, "generator_norm": "batch", "share_embedding": False}
    }

    skip_z: bool = True
    """Cut z into chunks, one for each stage.

    In the paper this is around 4% better and 18% faster than z in only the first layer.
    """
    embedding_dim: int = 64
    """Dimension of G's shared class embedding."""
    embedding_gain: float = 4.5
    """Factor of its orthogonal initialization (paper: 1).

    1 is too little for short runs to tell classes apart.
    """

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "embedding_dim", "embedding_gain")
        chunks = self.stages + 1
        nearest = max(1, round(self.latent_dim / chunks)) * chunks
        rule = f"a multiple of {chunks} chunks, such as {nearest}, or go with --no-skip-z"
        require(self, "latent_dim", not self.skip_z or self.latent_dim % chunks == 0, rule)


def mnist5k_32() -> Config:
    """5,000 real handwritten digits, minutes on a laptop: the defaults of Config."""
    return Config()


def fashion_mnist_32() -> Config:
    """Fashion-MNIST, a quarter of an hour on two cores; needs the data of Debian's dataset-fashion-mnist."""
    return Config(data="fashion-mnist", planned_steps=1800)


def cifar10_32() -> Config:
    """CIFAR-10, trained as Table 1's row 8; ch 64, widths and batch of 256 are ours; give --data cifar10:PATH."""
    return replace(
        _imagenet(32, (4, 4, 4, 4), (4, 4, 4, 4), latent_dim=80, attention=(16, 16)),
        data="cifar10:data/cifar-10-binary.tar.gz",
        num_classes=10,
        channels=64,
        discriminator_final_size=8,
        batch_size=256,
        ema_start=1000,
        planned_steps=100_000,
    )


def cifar10_c2() -> Config:
    """CIFAR-10 as in Appendix C.2: the settings of Table 1, row 8, with the widths of our 32x32 networks."""
    return replace(cifar10_32(), channels=96, batch_size=2048, ema_start=0)


def _imagenet(
    resolution: int,
    generator: tuple[int, ...],
    discriminator: tuple[int, ...],
    *,
    latent_dim: int,
    attention: tuple[int, int],
) -> Config:
    return Config(
        data=f"folder:data/imagenet-{resolution}",
        resolution=resolution,
        image_channels=3,
        num_classes=1000,
        channels=96,
        generator_widths=generator,
        discriminator_widths=discriminator,
        generator_attention=attention[:1],
        discriminator_attention=attention[1:],
        latent_dim=latent_dim,
        embedding_dim=128,
        embedding_gain=1.0,
        generator_orthogonal_penalty=1e-4,
        batch_size=2048,
        discriminator_steps=2,
        generator_lr=5e-5,
        discriminator_lr=2e-4,
        ema_decay=0.9999,
        ema_start=0,
        standing_batches=100,
        planned_steps=500_000,
    )


def imagenet_128() -> Config:
    """ImageNet at 128x128 as in Table 4, which is row 8 of Table 1; give --data folder:PATH."""
    return _imagenet(128, (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), latent_dim=120, attention=(64, 64))


def imagenet_256() -> Config:
    """ImageNet at 256x256 as in Table 5; give --data folder:PATH."""
    return _imagenet(256, (16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), latent_dim=140, attention=(128, 64))


def imagenet_512() -> Config:
    """ImageNet at 512x512 as in Table 6; give --data folder:PATH."""
    return _imagenet(512, (16, 16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16, 16), latent_dim=160, attention=(64, 64))


def jft_256_ch64() -> Config:
    """Row 2 of Table 3: JFT-300M at 256x256, at the baseline's width; give --data folder:PATH.

    The published parameter counts hold for all 18,291 labels and G's non-local block at 64x64. The text speaks of the
    8.5K most common ones, for which they would be 89.3, 192.9 and 335.6 million.
    """
    config = replace(imagenet_256(), data="folder:data/jft-300m", num_classes=18_291, channels=64)
    return replace(config, generator_attention=(64,))


def jft_256_ch96() -> Config:
    """Row 3 of Table 3: the same with the width of ImageNet's networks."""
    return replace(jft_256_ch64(), channels=96)


def jft_256_ch128() -> Config:
    """Row 4 of Table 3: wider still, which was no better on ImageNet."""
    return replace(jft_256_ch64(), channels=128)


def table1_row6() -> Config:
    """Row 6 of Table 1: the shared embedding, without skip-z and orthogonal regularization."""
    return replace(table1_row7(), skip_z=False, latent_dim=128)


def table1_row7() -> Config:
    """Row 7 of Table 1: shared embedding and skip-z, without orthogonal regularization."""
    return replace(imagenet_128(), generator_orthogonal_penalty=0.0)


def table1_row9() -> Config:
    """Row 9 of Table 1: all of BigGAN at the baseline's width."""
    return replace(imagenet_128(), channels=64)


PRESETS = {
    "mnist5k-32": mnist5k_32,
    "fashion-mnist-32": fashion_mnist_32,
    "cifar10-32": cifar10_32,
    "cifar10-c2": cifar10_c2,
    "imagenet-128": imagenet_128,
    "imagenet-256": imagenet_256,
    "imagenet-512": imagenet_512,
    "table1-row6": table1_row6,
    "table1-row7": table1_row7,
    "table1-row8": imagenet_128,
    "table1-row9": table1_row9,
    "jft-256-ch64": jft_256_ch64,
    "jft-256-ch96": jft_256_ch96,
    "jft-256-ch128": jft_256_ch128,
}


def conditional_norm(config: Config) -> Callable[..., nn.Module]:
    """Factory of the norms in G's blocks."""
    return partial(ConditionalBatchNorm2d, linear_layer=LAYERS.linear, eps=config.bn_eps)


def last_norm(config: Config) -> Callable[[int], nn.Module]:
    """Factory of the norm before the last convolution."""
    return partial(CrossReplicaBatchNorm2d, eps=config.last_bn_eps)


class Generator(ResidualGenerator):
    """G of Tables 4-6: from (z, class) to images in [-1, 1].

    Shape:
        - z: ``(batch, latent_dim)``
        - labels: ``(batch,)``, int64; or class weights ``(batch, num_classes)``, floating, to mix classes
        - returns: ``(batch, image_channels, resolution, resolution)``

    The keywords are for studies of other parts.
    """

    def __init__(
        self,
        config: Config,
        *,
        layers: LayerFactories = LAYERS,
        norm_layer: Callable[..., nn.Module] | None = None,
        last_norm_layer: Callable[[int], nn.Module] | None = None,
        block_layer: Callable[..., nn.Module] = ResidualGeneratorBlock,
    ) -> None:
        skip_z = (HierarchicalSkipZ if config.skip_z else NoSkipZ)(
            config.latent_dim, config.embedding_dim, num_blocks=config.stages
        )
        super().__init__(
            config,
            stem_features=skip_z.stem_features,
            norm_layer=partial(norm_layer or conditional_norm(config), condition_dim=skip_z.condition_dim),
            last_norm_layer=last_norm_layer or last_norm(config),
            layers=layers,
            block_layer=block_layer,
        )
        self.skip_z = skip_z
        # Only the shared embedding is not spectrally normalized, as in published code; the paper does not say.
        embedding = SharedEmbedding(config.num_classes, config.embedding_dim)
        self.embedding = init_orthogonal_(embedding, gain=config.embedding_gain)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Generate one image for each row of ``z``."""
        stem_input, conditions = self.skip_z(z, self.embedding(labels))
        return self.render(stem_input, conditions)


def build_discriminator(config: Config) -> nn.Module:
    """D of Tables 4-6 with fresh weights from the global random state."""
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
