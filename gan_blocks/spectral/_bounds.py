"""What the largest singular value of a weight is compared with: a number, or a multiple of the second value.

Tested in ``tests/spectral/test_clamping.py`` and ``tests/spectral/test_regularization.py``.
"""

import math

from torch import Tensor

from gan_blocks._checks import check_exactly_one, check_positive

__all__ = ["bound_of", "check_bound"]


def check_bound(owner: str, **bounds: float | None) -> None:
    """Raise unless exactly one bound is given, and that is greater than 0."""
    check_exactly_one(owner, **bounds)
    check_positive(owner, **{name: bound for name, bound in bounds.items() if bound is not None})


def bound_of(sigmas: Tensor, number: float | None, ratio: float | None) -> Tensor | float:
    """Return the bound for singular values of which the second is held constant; infinity if none is given."""
    if ratio is not None:
        return ratio * sigmas[1].detach()
    return math.inf if number is None else number
