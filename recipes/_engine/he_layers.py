"""Layers that start as He's initialiser has them, their scale either in the weights or equalised at run time.

Both kinds compute the same at the start of a training; what differs is how fast an optimiser moves them.

Tested in ``tests/recipes/test_progan.py``.
"""

import math
from dataclasses import dataclass

from torch import nn

from gan_blocks import EqualizedConv2d, EqualizedConvTranspose2d, EqualizedLinear

__all__ = ["HeLayers"]

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
        return _scaled(layer, in_channels * kernel_size**2, gain)

    def conv_transpose2d(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> nn.Module:
        """A transposed convolution."""
        if self.equalized:
            return EqualizedConvTranspose2d(in_channels, out_channels, kernel_size, padding=padding)
        layer = nn.ConvTranspose2d(in_channels, out_channels, kernel_size, padding=padding)
        return _scaled(layer, in_channels * kernel_size**2, ROOT_2)

    def linear(self, in_features: int, out_features: int, bias: bool = True, gain: float = 1.0) -> nn.Module:
        """A linear layer, by default one without an activation behind it."""
        if self.equalized:
            return EqualizedLinear(in_features, out_features, bias=bias, gain=gain)
        return _scaled(nn.Linear(in_features, out_features, bias), in_features, gain)


def _scaled(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, fan_in: int, gain: float) -> nn.Module:
    nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
