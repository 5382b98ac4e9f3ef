"""The truncation trick: latent vectors without their tails.

Tested in ``tests/latents/test_truncation.py``.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from gan_blocks._checks import bad_value, check_positive

__all__ = ["truncated_normal"]


def truncated_normal(
    *shape: int | Sequence[int],
    threshold: float | None,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Draw from the standard normal distribution with every component beyond a threshold drawn again.

    To draw again until :math:`|z| \le \tau` is to draw from the normal distribution conditioned on that event.
    Its inverse distribution function gives the same law without a loop, from one uniform number a component:

    .. math:: z = \sqrt{2}\,\operatorname{erf}^{-1}\!\big((2u - 1)\operatorname{erf}(\tau / \sqrt{2})\big),
        \qquad u \sim \mathcal{U}(0, 1)

    It is evaluated in float64 whatever the dtype of the result, so that large thresholds keep their tails.

    Other code calls other things truncation: the generators released by the paper's authors take
    ``t * truncated_normal(..., threshold=2)`` for a truncation of ``t``; some scale the standard deviation or clamp.

    Args:
        shape: Sizes of the result, as numbers or as one sequence.
        threshold: The threshold :math:`\tau` in standard deviations, greater than 0; None or infinity gives
            ``torch.randn``. The paper's figure 2 goes from 2 down to 0.04.
        generator: Source of the draws, on ``device``; None takes torch's global one.
        device: Device of the result.
        dtype: Floating dtype of the result; None takes torch's default.

    Returns:
        Independent components in ``[-threshold, threshold]``, symmetric about 0.

    Shape:
        - returns: ``shape``

    Raises:
        ValueError: If ``threshold`` is not greater than 0, or ``dtype`` is not a floating one.
        TypeError: If ``shape`` holds anything but sizes.

    References:
        Brock et al. 2018, section 3.1.

    Example:
        >>> z = truncated_normal(1000, 128, threshold=0.5, generator=torch.Generator().manual_seed(0))
        >>> z.shape, bool(z.abs().max() <= 0.5), round(z.std().item(), 2)
        (torch.Size([1000, 128]), True, 0.28)
    """
    dtype = dtype or torch.get_default_dtype()
    if not dtype.is_floating_point:
        raise bad_value("truncated_normal", "dtype", "a floating dtype", dtype)
    sizes = _sizes(shape)
    if threshold is None or threshold == math.inf:
        return torch.randn(sizes, generator=generator, device=device, dtype=dtype)
    check_positive("truncated_normal", threshold=threshold)
    u = torch.rand(sizes, generator=generator, device=device, dtype=torch.float64)
    # rand gives multiples of 2^-53 from 0 on: their midpoints are symmetric about 1/2 and never reach an infinite z.
    centred = u.mul_(2).add_(2.0**-53 - 1)
    z = centred.mul_(math.erf(threshold / math.sqrt(2))).erfinv_().mul_(math.sqrt(2))
    bound = _largest_within(threshold, dtype)
    return z.clamp_(-bound, bound).to(dtype)


def _sizes(shape: tuple[int | Sequence[int], ...]) -> torch.Size:
    """Read sizes as torch's factories do; torch words the error for what is no size."""
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    return torch.Size(cast("Sequence[int]", sizes))


def _largest_within(threshold: float, dtype: torch.dtype) -> float:
    """Round the threshold towards 0 to a number of ``dtype``, so that rounding a draw cannot pass the threshold."""
    rounded = torch.tensor(threshold, dtype=dtype, device="cpu")
    if rounded.item() > threshold:
        rounded = torch.nextafter(rounded, torch.zeros_like(rounded))
    return rounded.item()
