"""Layers that start as He's initializer has them, their scale either in the weights or equalized at run time.

Both kinds compute the same at the start of a training; what differs is how fast an optimizer moves them.

Tested in ``tests/recipes/test_progan.py``.
"""

import math
from dataclasses import dataclass

from torch import nn

from gan_blocks import EqualizedConv2d, EqualizedConvTranspose2d, EqualizedLinear, equalized_lr

__all__ = ["HeLayers", "he_scaled"]

ROOT_2 = math.sqrt(2.0)


@dataclass(frozen=True)
class HeLayers:
    """Factories of layers whose biases start at zero and whose weights are scaled by gain / sqrt(fan-in)."""

    equalized: bool
    """Scale at run time, so that all weights learn at one speed; else once, as the weights are drawn."""

    def conv2d(
        self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0, gain: float = ROOT_2
    ) -> nn.Module:
        """A convolution."""
        if self.equalized:
            return EqualizedConv2d(in_channels, out_channels, kernel_size, padding=padding, gain=gain)
        layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)
        return he_scaled(layer, in_channels * kernel_size**2, gain=gain)

    def conv_transpose2d(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> nn.Module:
        """A transposed convolution."""
        if self.equalized:
            return EqualizedConvTranspose2d(in_channels, out_channels, kernel_size, padding=padding)
        layer = nn.ConvTranspose2d(in_channels, out_channels, kernel_size, padding=padding)
        return he_scaled(layer, in_channels * kernel_size**2)

    def linear(self, in_features: int, out_features: int, bias: bool = True, gain: float = 1.0) -> nn.Module:
        """A linear layer, by default one without an activation behind it."""
        if self.equalized:
            return EqualizedLinear(in_features, out_features, bias=bias, gain=gain)
        return he_scaled(nn.Linear(in_features, out_features, bias), in_features, gain=gain)


def he_scaled(
    layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, fan_in: int, *, gain: float = ROOT_2, equalized: bool = False
) -> nn.Module:
    """A layer of any shape with weights as He's initializer has them, scaled as they are drawn or at run time."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if equalized:
        return equalized_lr(layer, gain=gain, fan_in=fan_in)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in))
    return layer
