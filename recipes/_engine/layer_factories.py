"""Factories of the layers of a recipe's networks, which need not know how their weights are normalised."""

from dataclasses import dataclass
from typing import Protocol

from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from gan_blocks import orthogonal_

__all__ = ["LayerFactories", "PlainLayers", "WeightNormLayers"]


class LayerFactories(Protocol):
    """Factories for ``conv_layer=``, ``linear_layer=`` and ``embedding_layer=``."""

    def conv2d(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
    ) -> nn.Module:
        """A convolution."""
        ...

    def linear(self, in_features: int, out_features: int, bias: bool = True) -> nn.Module:
        """A linear layer."""
        ...

    def embedding(self, num_embeddings: int, embedding_dim: int) -> nn.Module:
        """A table of class embeddings."""
        ...


@dataclass(frozen=True)
class PlainLayers:
    """Layers without any normalisation of their weights, which start orthogonal."""

    def conv2d(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
    ) -> nn.Module:
        """A convolution."""
        layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=bias)
        return orthogonal_(layer)

    def linear(self, in_features: int, out_features: int, bias: bool = True) -> nn.Module:
        """A linear layer."""
        return orthogonal_(nn.Linear(in_features, out_features, bias=bias))

    def embedding(self, num_embeddings: int, embedding_dim: int) -> nn.Module:
        """A table of class embeddings."""
        return orthogonal_(nn.Embedding(num_embeddings, embedding_dim))


@dataclass(frozen=True)
class WeightNormLayers:
    """Layers whose filters have a direction and a length as two parameters (Salimans and Kingma 2016)."""

    def conv2d(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
    ) -> nn.Module:
        """A convolution."""
        layer: nn.Module = weight_norm(
            PlainLayers().conv2d(in_channels, out_channels, kernel_size, padding, dilation, bias)
        )
        return layer

    def linear(self, in_features: int, out_features: int, bias: bool = True) -> nn.Module:
        """A linear layer."""
        layer: nn.Module = weight_norm(PlainLayers().linear(in_features, out_features, bias))
        return layer

    def embedding(self, num_embeddings: int, embedding_dim: int) -> nn.Module:
        """A table of class embeddings."""
        layer: nn.Module = weight_norm(PlainLayers().embedding(num_embeddings, embedding_dim))
        return layer
