"""BigGAN-deep: class-conditional images from deep residual bottlenecks (Brock et al. 2018, Appendix B, Tables 7-9).

The generator turns a latent vector and a class into an image; both reach every one of its blocks through
conditional batch normalization. The discriminator mirrors it and compares its features with an embedding of the class.
Both are spectrally normalized, initialized orthogonally and trained with the hinge loss; samples are drawn from an
exponential moving average of the generator with standing statistics (Appendix C).

Differences from the paper:

* The small presets (mnist5k-32, cifar10-32) are in no table of the paper: their widths and batches are ours.
* Tables 7-9 print an RGB convolution to 3; the 50.4M of Appendix B hold for one to ch, as the released weights have it.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from gan_blocks import (
    BottleneckDiscriminatorBlock,
    BottleneckGeneratorBlock,
    ConditionalBatchNorm2d,
    CrossReplicaBatchNorm2d,
    FullSkipZ,
    ProjectionHead,
    SelfAttention2d,
    SharedEmbedding,
    init_orthogonal_,
    normalized_layer,
)
from gan_blocks.engine import LatentFields, Recipe, require, require_positive
from recipes.families.attention import attention_names, fit_stages, stages_at
from recipes.families.hinge import HingeTrainingFields, hinge_train_step
from recipes.families.residual_config import BatchNormFields
from recipes.families.resolution import require_doublings
from recipes.families.spectral_layers import spectral_layers

__all__ = ["PRESETS", "RECIPE", "Config"]

EPS = 1e-4  # in spectral norm, and by default in BatchNorm (Appendix C)
LAYERS = spectral_layers(EPS)


@dataclass(frozen=True)
class Config(HingeTrainingFields, BatchNormFields, LatentFields):
    """What is trained: saved with the weights, and fixed once a run has started (only ``data`` may move)."""

    help_group: ClassVar[str] = "networks"

    channels: int = 16
    """The channel unit ch of Tables 7-9."""
    generator_widths: tuple[int, ...] = (8, 4, 2, 2)
    """G's widths in ch, at 4x4, 8x8, ..."""
    discriminator_widths: tuple[int, ...] = (1, 4, 8, 8)
    """D's, after its first layer and each stage.

    A stage has two blocks.
    """
    discriminator_final_size: int = 4
    """Height at which D's stages stop halving."""
    attention_resolution: int = 8
    """Height of a non-local block in both; 0: none."""
    generator_attention: tuple[int, ...] = ()
    """Further heights of G's non-local blocks."""
    discriminator_attention: tuple[int, ...] = ()
    """Further heights of D's non-local blocks.

    A height may be there once for each stage that ends at it.
    """
    embedding_dim: int = 64
    """Dimension of G's shared class embedding."""
    embedding_gain: float = 4.5
    """Factor of its orthogonal initialization (paper: 1).

    1 is too little for short runs to tell classes apart.
    """
    wide_rgb_conv: bool = False
    """Give G's last convolution filters for ch channels, the first few of which are used, as in released weights."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "channels", "discriminator_final_size", "embedding_dim")
        require_positive(self, "embedding_gain", "generator_widths", "discriminator_widths")
        require(self, "channels", self.channels % 8 == 0, "a multiple of 8")
        require_doublings(self, "generator_widths")
        drops = all(before >= after for before, after in pairwise(self.generator_widths))
        require(self, "generator_widths", drops, "non-increasing (shortcuts drop)")
        adds = all(before <= after for before, after in pairwise(self.discriminator_widths))
        require(self, "discriminator_widths", adds, "non-decreasing (shortcuts add)")
        last, halvings = self.discriminator_final_size, len(self.discriminator_widths) - 1
        sizes = [self.resolution // 2**number for number in range(1, halvings + 1)]
        require(self, "discriminator_final_size", last in sizes, f"one of {sizes}, where --discriminator-widths lead")
        places = [0, *(size for size in sizes if size >= max(last, 8))]
        require(self, "attention_resolution", self.attention_resolution in places, f"one of {places}")
        for field, heights in (
            ("generator_attention", self.generator_heights),
            ("discriminator_attention", self.discriminator_heights),
        ):
            free = list(heights)
            if self.attention_resolution:
                free.remove(self.attention_resolution)
            require(self, field, fit_stages(getattr(self, field), free), f"some of {list(dict.fromkeys(free))}")

    @property
    def generator_heights(self) -> list[int]:
        """Height after each stage of G."""
        return [8 * 2**number for number in range(len(self.generator_widths) - 1)]

    @property
    def discriminator_heights(self) -> list[int]:
        """Height after each stage of D."""
        halved = [self.resolution // 2**number for number in range(1, len(self.discriminator_widths))]
        return [max(height, self.discriminator_final_size) for height in halved]


def mnist5k_32() -> Config:
    """5,000 real handwritten digits, minutes on a laptop: the defaults of Config, but for a longer average of G."""
    return Config(ema_decay=0.995, ema_rampup=0.08)


def cifar10_32() -> Config:
    """CIFAR-10, trained as BigGAN's row 8; ch 64, widths and batch of 256 are ours; give --data cifar10:PATH."""
    return Config(
        data="cifar10:data/cifar-10-binary.tar.gz",
        image_channels=3,
        channels=64,
        generator_widths=(4, 4, 4, 4),
        discriminator_widths=(4, 4, 4, 4, 4),
        discriminator_final_size=8,
        attention_resolution=16,
        latent_dim=128,
        embedding_dim=128,
        embedding_gain=1.0,
        batch_size=256,
        discriminator_steps=2,
        generator_lr=5e-5,
        discriminator_lr=2e-4,
        generator_orthogonal_penalty=1e-4,
        ema_decay=0.9999,
        ema_start=1000,
        standing_batches=100,
        planned_steps=100_000,
    )


def _imagenet(
    resolution: int, generator: tuple[int, ...], discriminator: tuple[int, ...], lr: tuple[float, float]
) -> Config:
    return Config(
        data=f"folder:data/imagenet-{resolution}",
        resolution=resolution,
        image_channels=3,
        num_classes=1000,
        channels=128,
        generator_widths=generator,
        discriminator_widths=discriminator,
        attention_resolution=64,
        latent_dim=128,
        embedding_dim=128,
        embedding_gain=1.0,
        wide_rgb_conv=True,
        batch_size=2048,
        discriminator_steps=2,
        generator_lr=lr[0],
        discriminator_lr=lr[1],
        generator_orthogonal_penalty=1e-4,
        ema_decay=0.9999,
        ema_start=0,
        standing_batches=100,
        planned_steps=500_000,
    )


def imagenet_128() -> Config:
    """ImageNet at 128x128 as in Table 7; give --data folder:PATH."""
    return _imagenet(128, (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), (5e-5, 2e-4))


def imagenet_256() -> Config:
    """ImageNet at 256x256 as in Table 8; give --data folder:PATH."""
    return _imagenet(256, (16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), (2.5e-5, 2.5e-5))


def imagenet_512() -> Config:
    """ImageNet at 512x512 as in Table 9; give --data folder:PATH."""
    return _imagenet(512, (16, 16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16, 16), (2.5e-5, 2.5e-5))


PRESETS = {
    "mnist5k-32": mnist5k_32,
    "cifar10-32": cifar10_32,
    "imagenet-128": imagenet_128,
    "imagenet-256": imagenet_256,
    "imagenet-512": imagenet_512,
}


class Generator(nn.Module):
    """G of Tables 7-9: from (z, class) to images in [-1, 1].

    Shape:
        - z: ``(batch, latent_dim)``
        - labels: ``(batch,)``, int64; or class weights ``(batch, num_classes)``, floating, to mix classes
        - returns: ``(batch, image_channels, resolution, resolution)``
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = [width * config.channels for width in config.generator_widths]
        stages = list(pairwise(widths))
        # Only the shared embedding is not spectrally normalized, as in published code; the paper does not say.
        embedding = SharedEmbedding(config.num_classes, config.embedding_dim)
        self.embedding = init_orthogonal_(embedding, gain=config.embedding_gain)
        self.skip_z = FullSkipZ(config.latent_dim, config.embedding_dim, num_blocks=2 * len(stages))

        def norm(num_features: int) -> nn.Module:
            condition_dim, eps = self.skip_z.condition_dim, config.bn_eps
            return ConditionalBatchNorm2d(num_features, condition_dim, linear_layer=LAYERS.linear, eps=eps)

        self.stem = LAYERS.linear(self.skip_z.stem_features, widths[0] * 4 * 4)
        self.blocks = nn.ModuleList()
        for in_channels, out_channels in stages:
            self.blocks.append(
                BottleneckGeneratorBlock(in_channels, in_channels, norm_layer=norm, conv_layer=LAYERS.conv2d)
            )
            self.blocks.append(
                BottleneckGeneratorBlock(
                    in_channels, out_channels, upsample=True, norm_layer=norm, conv_layer=LAYERS.conv2d
                )
            )
        # Each non-local block follows both blocks of the stage that arrives at its height.
        self.attention_after, self.further_attention_after = _attention_places(
            config.attention_resolution, config.generator_attention, config.generator_heights
        )
        self.attention = _attention(widths, self.attention_after)
        self.further_attention = nn.ModuleDict(
            {name: _attention(widths, number) for number, name in self.further_attention_after.items()}
        )
        self.norm = CrossReplicaBatchNorm2d(widths[-1], eps=config.last_bn_eps)
        rgb_channels = config.channels if config.wide_rgb_conv else config.image_channels
        rgb_conv = normalized_layer(partial(_RGBConv2d, config.image_channels), normalize=LAYERS.normalize)
        self.to_rgb = rgb_conv(widths[-1], rgb_channels, 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Generate one image for each row of ``z``."""
        stem_input, conditions = self.skip_z(z, self.embedding(labels))
        h: Tensor = rearrange(self.stem(stem_input), "batch (c h w) -> batch c h w", h=4, w=4)
        for number, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            h = block(h, condition)
            if number == self.attention_after:
                h = self.attention(h)
            if number in self.further_attention_after:
                h = self.further_attention[self.further_attention_after[number]](h)
        return torch.tanh(self.to_rgb(F.relu(self.norm(h))))


class _RGBConv2d(nn.Conv2d):
    """A convolution that has filters for more channels than it computes: those of the image come first.

    The others count in what normalizes the weight, and learn only through that and the orthogonal penalty.
    """

    def __init__(self, image_channels: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.image_channels = image_channels

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias[: self.image_channels]
        image: Tensor = self._conv_forward(x, self.weight[: self.image_channels], bias)
        return image


class Discriminator(nn.Module):
    """D of Tables 7-9: from (image, class) to a logit, larger for more real.

    Shape:
        - images: ``(batch, image_channels, resolution, resolution)``, in [-1, 1]
        - labels: ``(batch,)``, int64
        - returns: ``(batch,)``
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = [width * config.channels for width in config.discriminator_widths]
        self.stem = LAYERS.conv2d(config.image_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        heights = config.discriminator_heights
        for before, after, (in_channels, out_channels) in zip(
            [config.resolution, *heights], heights, pairwise(widths), strict=False
        ):
            self.blocks.append(
                BottleneckDiscriminatorBlock(
                    in_channels, out_channels, downsample=after < before, conv_layer=LAYERS.conv2d
                )
            )
            self.blocks.append(BottleneckDiscriminatorBlock(out_channels, out_channels, conv_layer=LAYERS.conv2d))
        # Each non-local block follows both blocks of the stage that arrives at its height.
        self.attention_after, self.further_attention_after = _attention_places(
            config.attention_resolution, config.discriminator_attention, heights
        )
        self.attention = _attention(widths, self.attention_after)
        self.further_attention = nn.ModuleDict(
            {name: _attention(widths, number) for number, name in self.further_attention_after.items()}
        )
        self.head = ProjectionHead(
            widths[-1], config.num_classes, linear_layer=LAYERS.linear, embedding_layer=LAYERS.embedding
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Judge each image."""
        h: Tensor = self.stem(images)
        for number, block in enumerate(self.blocks):
            h = block(h)
            if number == self.attention_after:
                h = self.attention(h)
            if number in self.further_attention_after:
                h = self.further_attention[self.further_attention_after[number]](h)
        features = reduce(F.relu(h), "batch c h w -> batch c", "sum")
        logits: Tensor = self.head(features, labels)
        return logits


def _attention_places(first: int, further: tuple[int, ...], heights: list[int]) -> tuple[int, dict[int, str]]:
    """Numbers of the blocks that non-local blocks follow: the first (-1: none), and the further ones with names."""
    wanted = (first, *further) if first else further
    after = 2 * stages_at((first,), heights)[0] + 1 if first else -1
    names = {2 * stage + 1: name for stage, name in attention_names(wanted, heights).items()}
    return after, {number: name for number, name in names.items() if number != after}


def _attention(widths: list[int], after: int) -> nn.Module:
    return SelfAttention2d(widths[(after + 1) // 2], conv_layer=LAYERS.conv2d) if after >= 0 else nn.Identity()


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=Generator,
    build_discriminator=Discriminator,
    train_step=hinge_train_step,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
