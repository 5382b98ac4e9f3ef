"""Factories of the layers of a recipe's networks, which need not know how their weights are normalized."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from gan_blocks import init_orthogonal_

__all__ = ["Layer", "LayerFactories"]

Layer = nn.Conv2d | nn.Linear | nn.Embedding


def _as_it_is(layer: Layer) -> nn.Module:
    return layer


@dataclass(frozen=True)
class LayerFactories:
    """Factories for ``conv_layer=``, ``linear_layer=`` and ``embedding_layer=``, whose weights start orthogonal.

    What normalizes a weight comes after its initialization, and so starts on the values that are trained.
    """

    normalize: Callable[[Layer], nn.Module] = _as_it_is
    """Applied to each new layer, such as ``spectral_norm``."""

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
        return self.normalize(init_orthogonal_(layer))

    def linear(self, in_features: int, out_features: int, bias: bool = True) -> nn.Module:
        """A linear layer."""
        return self.normalize(init_orthogonal_(nn.Linear(in_features, out_features, bias=bias)))

    def embedding(self, num_embeddings: int, embedding_dim: int) -> nn.Module:
        """A table of class embeddings."""
        return self.normalize(init_orthogonal_(nn.Embedding(num_embeddings, embedding_dim)))
