"""The small networks of the discrete mode test: those of Metz et al. 2017, and of the code of Karras et al. 2018.

Tested in ``tests/recipes/test_stacked_mnist.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

from einops import rearrange
from torch import Tensor, nn

from gan_blocks import (
    CrossReplicaBatchNorm2d,
    FromRGB,
    MinibatchStdDev,
    PixelNorm,
    downsample_average,
    fade_in,
    upsample_conv2d,
    upsample_nearest,
)
from gan_blocks.engine import require, require_positive
from recipes.families.growing import GrowingNetwork
from recipes.families.growing_config import GrowthFields, alone_in_batch
from recipes.families.he_layers import he_scaled

__all__ = ["ModeTestFields", "build_discriminator", "build_generator"]


@dataclass(frozen=True)
class ModeTestFields(GrowthFields):
    """The networks: both kinds have the same widths, and almost the same number of parameters in D."""

    help_group: ClassVar[str] = "networks"
    widths_field: ClassVar[str] = "generator_widths"

    num_classes: int = 1
    """1: the networks have no classes; those of the data are taken as one."""
    networks: Literal["karras", "metz"] = "karras"
    """Those of ProGAN's code (sizes change by upsampling and pooling), or of Metz et al. (by strides)."""
    latent_dim: int = 64
    """Dimension of z: of the hypersphere for karras, normal for metz."""
    generator_widths: tuple[int, ...] = (64, 32, 16, 8)
    """Channels of G at 4x4, 8x8, ... up to the resolution."""
    discriminator_widths: tuple[int, ...] = (2, 4, 8)
    """Channels of D's convolutions from the resolution down to 8x8: 4 8 16 is K/2, 2 4 8 is K/4."""
    norm: Literal["batch", "equalized"] = "batch"
    """Batch normalization in both networks, or equalized learning rates in both and pixel norm in G."""
    minibatch_stddev: bool = False
    """Show D how much its batch varies, before its linear layer."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require(self, "num_classes", self.num_classes == 1, "1 (the networks have no classes)")
        require_positive(self, "latent_dim")
        stages = len(self.generator_widths) - 1
        widths = self.discriminator_widths
        rule = f"{stages} numbers greater than 0, one less than of --generator-widths"
        require(self, "discriminator_widths", len(widths) == stages and min(widths) > 0, rule)
        fits = not self.minibatch_stddev or self.batch_size > 1
        require(self, "batch_size", fits, "at least 2 with --minibatch-stddev")
        rule = "karras to grow from --initial-resolution"
        require(self, "networks", self.networks == "karras" or not self.grows, rule)

    def check_part(self, size: int) -> str | None:
        """Samples that are judged together must be two or more to be compared."""
        return alone_in_batch(size) if self.minibatch_stddev else None

    @property
    def grows(self) -> bool:
        """Whether the networks begin smaller than the images are."""
        return self.first_resolution < self.resolution


def build_generator(config: ModeTestFields) -> nn.Module:
    """G with fresh weights from the global random state."""
    return (Generator if config.networks == "karras" else StridedGenerator)(config)


def build_discriminator(config: ModeTestFields) -> nn.Module:
    """D with fresh weights from the global random state."""
    return (Discriminator if config.networks == "karras" else StridedDiscriminator)(config)


class Generator(GrowingNetwork):
    """G of ProGAN's code: from z to images of the current resolution, in [-1, 1].

    Shape:
        - z: ``(batch, latent_dim)``
        - labels: not used
        - returns: ``(batch, image_channels, size, size)``
    """

    def __init__(self, config: ModeTestFields) -> None:
        super().__init__(config.schedule)
        equalized, widths = config.norm == "equalized", config.generator_widths
        scaled = partial(he_scaled, equalized=equalized)
        act = partial(nn.LeakyReLU, 0.3)
        stem = nn.ConvTranspose2d(config.latent_dim, widths[0], 4, bias=equalized)
        self.stem = scaled(stem, 16 * config.latent_dim)  # its code counts all pixels of the kernel
        self.stem_norm = _generator_norm(widths[0], act, equalized)
        self.convs = nn.ModuleList(
            scaled(nn.Conv2d(before, after, 3, padding=1, bias=equalized), 9 * before)
            for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(_generator_norm(width, act, equalized) for width in widths[1:])
        heights = [4 * 2**level for level in range(len(widths))]
        self.to_rgb = nn.ModuleDict(
            {
                str(height): scaled(nn.Conv2d(width, config.image_channels, 3, padding=1), 9 * width, gain=1.0)
                for height, width in zip(heights, widths, strict=True)
                if height >= config.first_resolution
            }
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Generate one image for each row of ``z``, at the current resolution and alpha."""
        resolution, alpha = self.position.resolution, self.position.alpha
        x: Tensor = self.stem_norm(self.stem(z[:, :, None, None]))
        before, height = x, 4
        for conv, norm in zip(self.convs, self.norms, strict=True):
            if height == resolution:
                break
            before, x, height = x, norm(upsample_conv2d(conv, x)), 2 * height
        image: Tensor = self.to_rgb[str(resolution)](x)
        if alpha < 1:
            image = fade_in(upsample_nearest(self.to_rgb[str(resolution // 2)](before)), image, alpha)
        return image.tanh()


class Discriminator(GrowingNetwork):
    """D of ProGAN's code: from images of the current resolution to logits, larger for more real.

    Shape:
        - images: ``(batch, image_channels, size, size)``
        - labels: not used
        - returns: ``(batch,)``
    """

    def __init__(self, config: ModeTestFields) -> None:
        super().__init__(config.schedule)
        equalized, widths = config.norm == "equalized", config.discriminator_widths
        scaled = partial(he_scaled, equalized=equalized)
        channels = (config.image_channels, *widths)
        self.convs = nn.ModuleList(
            scaled(nn.Conv2d(before, after, 3, padding=1, bias=equalized), 9 * before)
            for before, after in pairwise(channels)
        )
        self.norms = nn.ModuleList(_discriminator_norm(width, equalized) for width in widths)

        def from_rgb_conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
            return scaled(nn.Conv2d(in_channels, out_channels, kernel_size), in_channels)

        heights = [config.resolution // 2 ** (number + 1) for number in range(len(widths))]
        self.from_rgb = nn.ModuleDict(
            {
                str(height): FromRGB(config.image_channels, width, conv_layer=from_rgb_conv)
                for height, width in zip(heights, widths, strict=True)
                if height >= config.first_resolution
            }
        )
        self.statistics, self.linear = _head(config)
        self.resolution = config.resolution

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Score each image, at the current resolution and alpha."""
        height, alpha = self.position.resolution, self.position.alpha
        x = images if height == self.resolution else self.from_rgb[str(height)](images)
        unused = (self.resolution // height).bit_length() - 1
        for conv, norm in list(zip(self.convs, self.norms, strict=True))[unused:]:
            x = downsample_average(norm(conv(x)))
            if alpha < 1 and x.shape[2] == height // 2:
                x = fade_in(self.from_rgb[str(height // 2)](downsample_average(images)), x, alpha)
        return _score(self.linear, self.statistics(x))


class StridedGenerator(nn.Module):
    """G of Metz et al.: from z to images in [-1, 1].

    Shape:
        - z: ``(batch, latent_dim)``
        - labels: not used
        - returns: ``(batch, image_channels, resolution, resolution)``
    """

    def __init__(self, config: ModeTestFields) -> None:
        super().__init__()
        equalized, widths = config.norm == "equalized", config.generator_widths
        scaled = partial(he_scaled, equalized=equalized)
        self.linear = scaled(nn.Linear(config.latent_dim, 16 * widths[0], bias=equalized), config.latent_dim)
        self.norm = _generator_norm(widths[0], nn.ReLU, equalized)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            conv = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1, bias=equalized)
            # With a stride of 2 a pixel meets a quarter of the 9 weights of each channel, on average.
            self.blocks.append(nn.Sequential(scaled(conv, before * 9 // 4), _generator_norm(after, nn.ReLU, equalized)))
        self.to_image = scaled(nn.Conv2d(widths[-1], config.image_channels, 3, padding=1), 9 * widths[-1], gain=1.0)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Generate one image for each row of ``z``."""
        x: Tensor = self.norm(rearrange(self.linear(z), "b (c h w) -> b c h w", h=4, w=4))
        for block in self.blocks:
            x = block(x)
        image: Tensor = self.to_image(x)
        return image.tanh()


class StridedDiscriminator(nn.Module):
    """D of Metz et al.

    Shape:
        - images: ``(batch, image_channels, resolution, resolution)``
        - labels: not used
        - returns: ``(batch,)``
    """

    def __init__(self, config: ModeTestFields) -> None:
        super().__init__()
        equalized, widths = config.norm == "equalized", config.discriminator_widths
        scaled = partial(he_scaled, equalized=equalized)
        self.blocks = nn.ModuleList()
        for before, after in zip((config.image_channels, *widths), widths, strict=False):
            conv = scaled(nn.Conv2d(before, after, 3, stride=2, padding=1, bias=equalized), 9 * before)
            self.blocks.append(nn.Sequential(conv, _discriminator_norm(after, equalized)))
        self.statistics, self.linear = _head(config)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Score each image."""
        x = images
        for block in self.blocks:
            x = block(x)
        return _score(self.linear, self.statistics(x))


def _head(config: ModeTestFields) -> tuple[nn.Module, nn.Module]:
    """What both discriminators end with: the statistics across the batch, if any, and the linear layer."""
    statistics = MinibatchStdDev() if config.minibatch_stddev else nn.Identity()
    features = 16 * (config.discriminator_widths[-1] + config.minibatch_stddev)
    return statistics, he_scaled(nn.Linear(features, 1), features, gain=1.0, equalized=config.norm == "equalized")


def _score(linear: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = rearrange(linear(rearrange(x, "b c h w -> b (c h w)")), "b 1 -> b")
    return logits


def _generator_norm(width: int, act: Callable[[], nn.Module], equalized: bool) -> nn.Module:
    """Normalization and activation in their order: the batch's before, a pixel's after it."""
    return nn.Sequential(act(), PixelNorm()) if equalized else nn.Sequential(CrossReplicaBatchNorm2d(width), act())


def _discriminator_norm(width: int, equalized: bool) -> nn.Module:
    """The normalization, if any, and the activation."""
    # With statistics of the batch there is no buffer that a second call before the backward pass would change.
    norm = nn.Identity() if equalized else CrossReplicaBatchNorm2d(width, statistics="batch")
    return nn.Sequential(norm, nn.LeakyReLU(0.2))
