"""The layers of networks with spectral norm.

Tested in ``tests/recipes/families/test_spectral_layers.py``.
"""

from functools import partial

from gan_blocks import spectral_norm
from recipes.families.layers import LayerFactories

__all__ = ["spectral_layers"]


def spectral_layers(eps: float) -> LayerFactories:
    """Layers whose weights start orthogonal and are divided by their largest singular value.

    Args:
        eps: Smallest divisor.
    """
    return LayerFactories(partial(spectral_norm, eps=eps))
