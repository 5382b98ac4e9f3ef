"""ProGAN's two networks, built fully grown, of which each resolution uses a part (Karras et al. 2018, Table 2).

Tested in ``tests/recipes/test_progan.py``.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gan_blocks import (
    AdaptiveGaussianNoise,
    CrossReplicaBatchNorm2d,
    FromRGB,
    GrowthPosition,
    GrowthSchedule,
    MinibatchDiscrimination,
    MinibatchStdDev,
    PixelNorm,
    ProgressiveDiscriminatorBlock,
    ProgressiveDiscriminatorHead,
    ProgressiveGeneratorBlock,
    ProgressiveGeneratorStem,
    ToRGB,
    downsample_average,
    fade_images,
    fade_in,
    upsample_nearest,
)
from gan_blocks.engine import TrainingState
from recipes.families.growing_config import GrowingFields, GrowthFields
from recipes.families.he_layers import HeLayers

__all__ = [
    "GrowingDiscriminator",
    "GrowingGenerator",
    "GrowingNetwork",
    "grow_networks",
    "log_of_schedules",
    "real_images_at",
]

ConvLayer: TypeAlias = Callable[..., nn.Module]  # called like nn.Conv2d


class GrowingNetwork(nn.Module):
    """A network that knows how far it has grown; it is built fully grown.

    The images seen are a buffer, so that weights tell by themselves which of their layers are in use.
    """

    images_seen: Tensor

    def __init__(self, schedule: GrowthSchedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.register_buffer("images_seen", torch.tensor(schedule.growth_images))
        self.position = schedule.at(schedule.growth_images)

    def grow(self, images_seen: int) -> None:
        """Take the resolution and alpha that the schedule has after so many real images."""
        self.images_seen.fill_(images_seen)
        self.position = self.schedule.at(images_seen)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if not self.images_seen.is_meta:
            self.position = self.schedule.at(int(self.images_seen))


class GrowingGenerator(GrowingNetwork):
    """G of Table 2: from z to images of the current resolution.

    Shape:
        - z: ``(batch, latent_dim)``, on the hypersphere of the paper
        - labels: ``(batch,)``, not looked at
        - returns: ``(batch, image_channels, size, size)``
    """

    def __init__(self, config: GrowingFields) -> None:
        super().__init__(config.schedule)
        layers = HeLayers(config.equalized)
        conv: ConvLayer = layers.conv2d
        first: ConvLayer = layers.conv_transpose2d
        to_image: ConvLayer = partial(layers.conv2d, gain=1.0)
        act: Callable[[], nn.Module] = nn.ReLU
        self.output: nn.Module = nn.Tanh()
        if config.generator_output == "leaky-linear":
            act, self.output = partial(nn.LeakyReLU, 0.2), nn.Identity()
        norm: Callable[[int], nn.Module] = nn.Identity
        if config.generator_norm == "pixel":
            norm = _pixel_norm
        elif config.generator_norm == "batch":  # before the activation
            conv, first = _followed_by(conv, CrossReplicaBatchNorm2d), _followed_by(first, CrossReplicaBatchNorm2d)
        self.stem = ProgressiveGeneratorStem(
            config.latent_dim,
            config.widths[0],
            conv_layer=conv,
            conv_transpose_layer=first,
            act_layer=act,
            norm_layer=norm,
        )
        self.blocks = nn.ModuleList(  # block i makes features of 8 * 2^i pixels from half of that
            ProgressiveGeneratorBlock(before, after, conv_layer=conv, act_layer=act, norm_layer=norm)
            for before, after in pairwise(config.widths)
        )
        self.to_rgb = nn.ModuleList(ToRGB(width, config.image_channels, conv_layer=to_image) for width in config.widths)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Generate one image for each row of ``z``, at the current resolution and alpha."""
        return self.generate(z, self.position.resolution, self.position.alpha)

    def generate(self, z: Tensor, resolution: int, alpha: float) -> Tensor:
        """Generate at any resolution, of which the last block has a share alpha."""
        level = _level(resolution)
        h: Tensor = self.stem(z)
        for block in self.blocks[: max(level - 1, 0)]:
            h = block(h)
        last = h if level == 0 else self.blocks[level - 1](h)
        image: Tensor = self.to_rgb[level](last)
        if level > 0 and alpha < 1:
            image = fade_in(upsample_nearest(self.to_rgb[level - 1](h)), image, alpha)
        faded: Tensor = self.output(image)
        return faded


class GrowingDiscriminator(GrowingNetwork):
    """D of Table 2: from images of the current resolution to logits, larger for more real.

    Shape:
        - images: ``(batch, image_channels, size, size)``
        - labels: ``(batch,)``, not looked at
        - returns: ``(batch,)``

    With ``noisy`` its 3x3 and 4x4 convolutions see adaptive noise (Appendix B), and it begins by taking all images for
    real, with logits around 1: the published code has it so, where logits begin around 0 and the targets are swapped.
    """

    def __init__(self, config: GrowingFields, *, noisy: bool = False) -> None:
        super().__init__(config.schedule)
        layers = HeLayers(config.equalized)
        conv: ConvLayer = layers.conv2d
        if config.discriminator_norm == "layer":
            conv = _followed_by(conv, partial(nn.GroupNorm, 1))  # one group: all channels and pixels of a sample
        if noisy:
            conv = _after_noise(conv)
        self.from_rgb = nn.ModuleList(
            FromRGB(config.image_channels, width, conv_layer=layers.conv2d) for width in config.widths
        )
        self.blocks = nn.ModuleList(  # block i takes features of 8 * 2^i pixels to half of that
            ProgressiveDiscriminatorBlock(after, before, conv_layer=conv) for before, after in pairwise(config.widths)
        )

        def linear(features: int, outputs: int) -> nn.Module:
            layer = layers.linear(features, outputs)
            if noisy:
                assert isinstance(layer.bias, Tensor)
                nn.init.ones_(layer.bias)
            return layer

        def score(features: int, outputs: int) -> nn.Module:
            if config.batch_statistics != "discrimination":
                return linear(features, outputs)
            statistics = MinibatchDiscrimination(features, linear_layer=layers.linear)
            return nn.Sequential(statistics, linear(features + statistics.num_kernels, outputs))

        stddev = partial(MinibatchStdDev, group_size=config.stddev_group_size or None)
        self.head = ProgressiveDiscriminatorHead(
            config.widths[0],
            config.widths[0],
            stddev_layer=stddev if config.batch_statistics == "stddev" else None,
            conv_layer=conv,
            linear_layer=score,
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Judge each image, at the current resolution and alpha."""
        return self.judge(images, self.position.resolution, self.position.alpha)

    def judge(self, images: Tensor, resolution: int, alpha: float) -> Tensor:
        """Judge at any resolution, of which the first block has a share alpha.

        Raises:
            ValueError: If the images are of another resolution.
        """
        if images.shape[2:] != (resolution, resolution):
            got = tuple(images.shape)
            raise ValueError(
                f"Discriminator: `images` must be of {resolution}x{resolution} pixels, but got shape {got}."
            )
        level = _level(resolution)
        h: Tensor = self.from_rgb[level](images)
        if level > 0:
            h = self.blocks[level - 1](h)
            if alpha < 1:
                h = fade_in(self.from_rgb[level - 1](downsample_average(images)), h, alpha)
            for number in reversed(range(level - 1)):
                h = self.blocks[number](h)
        logits: Tensor = self.head(h)
        return logits


def grow_networks(state: TrainingState, config: GrowthFields, step: int) -> GrowthPosition:
    """Bring all networks to where the schedule is at a step, and let the optimizers start anew with a new phase."""
    images_seen = config.images_before(step)
    position = config.schedule.at(images_seen)
    for network in (state.generator, state.discriminator, state.ema.module):
        assert isinstance(network, GrowingNetwork)
        network.grow(images_seen)
    if step > 1 and config.position(step - 1).phase != position.phase:
        for optimizer in (state.optimizer_g, state.optimizer_d):
            optimizer.state.clear()
    return position


def log_of_schedules(config: GrowthFields, position: GrowthPosition) -> dict[str, Tensor]:
    """Where the schedules stand, to log."""
    values = {"alpha": position.alpha}
    if config.rampup_images > 0:
        values |= {"generator_lr": config.generator_lr, "discriminator_lr": config.discriminator_lr}
    exact = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    return {"resolution": torch.tensor(position.resolution), **exact}


def real_images_at(images: Tensor, resolution: int, alpha: float) -> Tensor:
    """Real images shrunk to a resolution by averaging, and faded with its half as the generator's are.

    Raises:
        ValueError: If the images are smaller, or their size is no doubling of the resolution.
    """
    if images.shape[-1] < resolution:
        rule = f"of at least {resolution}x{resolution} pixels"
        raise ValueError(f"real_images_at: `images` must be {rule}, but got shape {tuple(images.shape)}.")
    while images.shape[-1] > resolution:
        images = downsample_average(images)
    return images if alpha == 1 else fade_images(images, alpha)


def _level(resolution: int) -> int:
    """How often 4 is doubled."""
    return resolution.bit_length() - 3


def _pixel_norm(_channels: int) -> nn.Module:
    return PixelNorm()


def _followed_by(conv_layer: ConvLayer, last_layer: Callable[[int], nn.Module]) -> ConvLayer:
    """A factory of convolutions with a layer behind each, which is told the number of channels."""

    def build(in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> nn.Module:
        convolution = conv_layer(in_channels, out_channels, kernel_size, padding=padding)
        return nn.Sequential(convolution, last_layer(out_channels))

    return build


def _after_noise(conv_layer: ConvLayer) -> ConvLayer:
    """A factory of convolutions whose input is noisy (Appendix B)."""

    def build(in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> nn.Module:
        return nn.Sequential(
            AdaptiveGaussianNoise(), conv_layer(in_channels, out_channels, kernel_size, padding=padding)
        )

    return build
