"""BigGAN: class-conditional images from residual blocks that see chunks of z (Brock et al. 2018, Tables 1 and 4-6).

The generator cuts the latent vector into chunks: the first makes 4x4 pixels, each other one, beside an embedding of the
class that all blocks share, sets the gains and biases of one block's batch normalization. The discriminator sums the
features of its residual blocks over all pixels and compares them with an embedding of the class. Both have a non-local
block, are spectrally normalized, initialized orthogonally and trained with the hinge loss; samples are drawn from an
exponential moving average of the generator with standing statistics (Appendix C).

Rows 6 to 9 of Table 1 are presets here, rows 1 to 5 in recipes.sagan.

Differences from the paper:

* The 32x32 presets are in no table of the paper: their widths and batches are ours.
* Tables 4-6 print 20 + 128 inputs of the first layer; the published parameter counts hold for its chunk of 20 alone.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from gan_blocks import (
    ConditionalBatchNorm2d,
    CrossReplicaBatchNorm2d,
    FiLM2d,
    HierarchicalSkipZ,
    NoSkipZ,
    ProjectedEmbedding,
    SharedEmbedding,
    init_orthogonal_,
)
from gan_blocks.engine import Recipe, StepBatches, TrainingState, require, require_positive
from recipes.families.hinge import HingeTrainingFields, hinge_train_step
from recipes.families.layers import LayerFactories
from recipes.families.residual import ResidualDiscriminator, ResidualGenerator
from recipes.families.residual_config import ResidualFields
from recipes.families.spectral_layers import discriminator_layers, generator_layers

__all__ = ["PRESETS", "RECIPE", "Config"]

EPS = 1e-4  # in BatchNorm and spectral norm alike (Appendix C)


@dataclass(frozen=True)
class Config(HingeTrainingFields, ResidualFields):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""

    skip_z: bool = True
    """Cut z into a chunk for the first layer and one for each stage (paper: 4% better, 18% faster than all at once)."""
    embedding_dim: int = 64
    """Dimension of the class embedding that all blocks of the generator share."""
    embedding_gain: float = 4.5
    """Factor of the embedding's orthogonal initialization (paper: 1); with more, a short run tells classes apart."""
    embedding_hidden: int = 0
    """Width of a hidden layer between condition and gains or biases (paper: no benefit); 0: a linear projection."""
    generator_norm: Literal["batch", "weight", "none"] = "batch"
    """What G normalizes: features by batch, or filters alone by length or sigma (paper: both cripple training)."""

    share_embedding: bool = False
    """D compares features with a projection of G's embedding (paper: helps at first, scales poorly)."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "embedding_dim", "embedding_gain")
        require(self, "embedding_hidden", self.embedding_hidden >= 0, "at least 0")
        for field in ("generator_sigma_clamp", "generator_sigma_clamp_ratio", "generator_sigma_penalty"):
            spectral = self.generator_norm != "weight" or getattr(self, field) == 0
            require(self, field, spectral, "0 with --generator-norm weight, which takes spectral norm out of G")
        mixed = self.discriminator_norm == "batch" and self.r1_penalty > 0
        rule = "0 with --discriminator-norm batch, since the slope at one image is then not its own"
        require(self, "r1_penalty", not mixed, rule)
        chunks = self.stages + 1
        nearest = max(1, round(self.latent_dim / chunks)) * chunks
        rule = f"a multiple of {chunks} chunks, such as {nearest}, or go with --skip-z False"
        require(self, "latent_dim", not self.skip_z or self.latent_dim % chunks == 0, rule)


def mnist5k_32() -> Config:
    """5,000 real handwritten digits, minutes on a laptop: the defaults of Config."""
    return Config()


def fashion_mnist_32() -> Config:
    """Fashion-MNIST, a quarter of an hour on two cores; needs the data of Debian's dataset-fashion-mnist."""
    return Config(data="fashion-mnist", planned_steps=1800)


def cifar10_32() -> Config:
    """CIFAR-10 with the settings of Table 1, row 8, but a batch of 256; give --data cifar10:PATH."""
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
    "imagenet-128": imagenet_128,
    "imagenet-256": imagenet_256,
    "imagenet-512": imagenet_512,
    "table1-row6": table1_row6,
    "table1-row7": table1_row7,
    "table1-row8": imagenet_128,
    "table1-row9": table1_row9,
}


class Generator(ResidualGenerator):
    """G of Tables 4-6: from (z, class) to images in [-1, 1].

    Shape:
        - z: ``(batch, latent_dim)``
        - labels: ``(batch,)``, int64; or class weights ``(batch, num_classes)``, floating, to mix classes
        - returns: ``(batch, image_channels, resolution, resolution)``
    """

    def __init__(self, config: Config) -> None:
        by_length = config.generator_norm == "weight"
        # Weight norm is that of Salimans and Kingma 2016.
        layers = LayerFactories(weight_norm) if by_length else generator_layers(config, eps=EPS)
        skip_z = (HierarchicalSkipZ if config.skip_z else NoSkipZ)(
            config.latent_dim, config.embedding_dim, num_blocks=config.stages
        )

        def perceptron(in_features: int, out_features: int, bias: bool) -> nn.Module:
            hidden = layers.linear(in_features, config.embedding_hidden)
            return nn.Sequential(hidden, nn.ReLU(), layers.linear(config.embedding_hidden, out_features, bias))

        by_batch = config.generator_norm == "batch"
        project = perceptron if config.embedding_hidden else layers.linear
        modulate = partial(ConditionalBatchNorm2d, eps=EPS) if by_batch else FiLM2d
        super().__init__(
            config,
            stem_features=skip_z.stem_features,
            norm_layer=partial(modulate, condition_dim=skip_z.condition_dim, linear_layer=project),
            last_norm_layer=partial(CrossReplicaBatchNorm2d, eps=EPS) if by_batch else nn.Identity,
            layers=layers,
        )
        self.skip_z = skip_z
        # The shared embedding alone is not spectrally normalized.
        embedding = SharedEmbedding(config.num_classes, config.embedding_dim)
        self.embedding = init_orthogonal_(embedding, gain=config.embedding_gain)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Generate one image for each row of ``z``."""
        stem_input, conditions = self.skip_z(z, self.embedding(labels))
        return self.render(stem_input, conditions)


def build_discriminator(config: Config) -> nn.Module:
    """D of Tables 4-6 with fresh weights from the global random state."""
    layers = discriminator_layers(config, eps=EPS)

    def projected(num_classes: int, out_features: int) -> nn.Module:
        return ProjectedEmbedding(num_classes, config.embedding_dim, out_features, linear_layer=layers.linear)

    return ResidualDiscriminator(
        config,
        layers=layers,
        dropout=config.discriminator_dropout,
        embedding_layer=projected if config.share_embedding else None,
    )


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    """The family's step (hinge loss), on G's class embedding as it is now where D shares it."""
    if config.share_embedding:
        seen, shared = state.discriminator.get_submodule("head.embedding"), state.generator.get_submodule("embedding")
        assert isinstance(seen, ProjectedEmbedding)
        assert isinstance(shared, SharedEmbedding)
        seen.follow(shared)
    return hinge_train_step(state, batches, config)


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=Generator,
    build_discriminator=build_discriminator,
    train_step=train_step,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
