"""Factories of the layers of a recipe's networks, which need not know how their weights are normalized."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from gan_blocks import normalized_layer

__all__ = ["LayerFactories"]


def _as_it_is(layer: nn.Module) -> nn.Module:
    return layer


@dataclass(frozen=True)
class LayerFactories:
    """Factories for ``conv_layer=``, ``linear_layer=`` and ``embedding_layer=``, whose weights start orthogonal.

    What normalizes a weight comes after its initialization, and so starts on the values that are trained.
    """

    normalize: Callable[[nn.Module], nn.Module] = _as_it_is
    """Applied to each new layer, such as ``spectral_norm``."""

    @property
    def conv2d(self) -> Callable[..., nn.Module]:
        """Makes convolutions; called like ``nn.Conv2d``."""
        return normalized_layer(nn.Conv2d, normalize=self.normalize)

    @property
    def linear(self) -> Callable[..., nn.Module]:
        """Makes linear layers; called like ``nn.Linear``."""
        return normalized_layer(nn.Linear, normalize=self.normalize)

    @property
    def embedding(self) -> Callable[..., nn.Module]:
        """Makes tables of class embeddings; called like ``nn.Embedding``."""
        return normalized_layer(nn.Embedding, normalize=self.normalize)
