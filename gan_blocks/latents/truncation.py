"""The truncation trick: latent vectors without their tails, by the paper's method and by the released models'.

Tested in ``tests/latents/test_truncation.py``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor

from gan_blocks._checks import bad_kind, bad_value, check_at_least_0, check_finite
from gan_blocks._precision import has_float64
from gan_blocks.latents._draws import Draws
from gan_blocks.latents._rounding import largest_within
from gan_blocks.latents.priors import NormalPrior, Prior
from gan_blocks.latents.varying_variance import AnnealedNormalPrior

__all__ = ["TruncatedNormalPrior", "truncated_normal", "truncated_prior"]

RELEASED_THRESHOLD = 2.0  # of the "scaled" method


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

    Other code calls other things truncation; :func:`truncated_prior` has the other common method.

    Args:
        shape: Sizes of the result, as numbers or as one sequence.
        threshold: The threshold :math:`\tau` in standard deviations, at least 0, where all components are 0; None or
            infinity gives ``torch.randn``. The paper's figure 2 goes from 2 down to 0.04.
        generator: Source of the draws, on ``device``; None takes torch's global one.
        device: Device of the result.
        dtype: Floating dtype of the result; None takes torch's default.

    Returns:
        Independent components in ``[-threshold, threshold]``, symmetric about 0.

    Shape:
        - returns: ``shape``

    Raises:
        ValueError: If ``threshold`` is less than 0, or ``dtype`` is not a floating one.
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
    check_at_least_0("truncated_normal", threshold=threshold)
    if threshold == 0:
        return torch.zeros(sizes, device=device, dtype=dtype)
    device = torch.empty(0, device=device).device
    u = _uniform_float64(sizes, generator, device)
    # rand gives multiples of 2^-53 from 0 on: their midpoints are symmetric about 1/2 and never reach an infinite z.
    centered = u.mul_(2).add_(2.0**-53 - 1)
    z = centered.mul_(math.erf(threshold / math.sqrt(2))).erfinv_().mul_(math.sqrt(2))
    bound = largest_within(threshold, dtype)
    return z.clamp_(-bound, bound).to(device=device, dtype=dtype)


def _uniform_float64(sizes: Sequence[int], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Draw multiples of 2^-53 from [0, 1), which land on the CPU where the device has no float64."""
    if has_float64(device):
        return torch.rand(sizes, generator=generator, device=device, dtype=torch.float64)
    high, low = (
        torch.randint(2**bits, sizes, generator=generator, device=device, dtype=torch.int32).cpu().double()
        for bits in (27, 26)
    )
    return high * 2.0**-27 + low * 2.0**-53


@dataclass(frozen=True)
class TruncatedNormalPrior(Prior):
    r"""Independent normal components, each drawn again until it lies within a threshold.

    .. math:: z = s\,t, \qquad t \sim \mathcal{N}(0, I) \ \text{given that all}\ |t_i| \le \tau

    The variance is that of the truncated normal distribution,
    :math:`s^2 \big(1 - 2 \tau \varphi(\tau) / \operatorname{erf}(\tau / \sqrt{2})\big)`, with the standard normal
    density :math:`\varphi`.

    Args:
        dim: Number of components of z, at least 1.
        threshold: The threshold :math:`\tau`, in units of ``std``, at least 0, where z is 0.
        std: Standard deviation s of the normal distribution before its tails are taken away, at least 0.

    Raises:
        ValueError: If ``dim`` is not positive, or ``threshold`` or ``std`` is negative or infinite.

    References:
        Brock et al. 2018, section 3.1.

    Example:
        >>> TruncatedNormalPrior(128, threshold=0.5, std=2.0).support
        (-1.0, 1.0)
    """

    threshold: float = field(kw_only=True)
    std: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_0("TruncatedNormalPrior", threshold=self.threshold, std=self.std)
        check_finite("TruncatedNormalPrior", threshold=self.threshold, std=self.std)

    def _sample(self, draws: Draws) -> Tensor:
        z = truncated_normal(
            draws.batch_size,
            self.dim,
            threshold=self.threshold,
            generator=draws.generator,
            device=draws.device,
            dtype=draws.dtype,
        )
        if self.std == 1:
            return z
        bound = largest_within(self.support[1], z.dtype)
        return z.mul_(self.std).clamp_(-bound, bound)

    @property
    def support(self) -> tuple[float, float]:
        """The threshold times ``std`` on both sides of 0."""
        return -self.threshold * self.std, self.threshold * self.std

    @property
    def mean(self) -> Tensor:
        """Zero for each component, ``(dim,)`` in float64."""
        return self._for_each_component(0)

    @property
    def variance(self) -> Tensor:
        """Variance of what is left of each component, ``(dim,)`` in float64."""
        return self._for_each_component(self.std**2 * _truncated_variance(self.threshold))


def truncated_prior(
    prior: Prior, truncation: float | None, *, method: Literal["threshold", "scaled"] = "threshold"
) -> Prior:
    r"""Take the tails off a normal prior, by a named method of truncation.

    Two definitions are in wide use, and the same number means different things in them:

    * ``"threshold"``, the paper's: components beyond ``truncation`` standard deviations are drawn again. It goes
      from any large number, which changes nothing, down to 0.
    * ``"scaled"``, that of the generators which the paper's authors released: ``truncation`` times a normal
      distribution cut at 2, :math:`t\,\mathcal{N}_{[-2, 2]}`. It goes from 1 down to 0, and the tables of BatchNorm
      statistics in released weights belong to it.

    At small numbers the first is nearly uniform and the second still bell-shaped: at 0.5 their standard deviations are
    0.28 and 0.44. Code that only scales the standard deviation, or clamps, does something else again.

    Args:
        prior: The normal prior that the generator was trained with; an annealed one as it was in the end.
        truncation: How much to truncate, at least 0: less is better looking and less varied, and 0 gives z = 0, the
            mean image of a class. None, or an infinite threshold: not at all.
        method: What the number means, ``"threshold"`` or ``"scaled"``.

    Returns:
        The prior to sample from; ``prior`` itself where nothing is truncated.

    Raises:
        ValueError: If ``truncation`` is less than 0, or infinite with ``"scaled"``, or there is no such method.
        TypeError: If ``prior`` is not normal: other distributions have no tails that the definitions could mean.

    References:
        Brock et al. 2018, section 3.1.

    Example:
        >>> truncated_prior(NormalPrior(128), 0.5)
        TruncatedNormalPrior(dim=128, threshold=0.5, std=1.0)
        >>> truncated_prior(NormalPrior(128), 0.5, method="scaled")
        TruncatedNormalPrior(dim=128, threshold=2.0, std=0.5)
    """
    if method not in ("threshold", "scaled"):
        raise bad_value("truncated_prior", "method", "'threshold' or 'scaled'", method)
    if truncation is None:
        return prior
    check_at_least_0("truncated_prior", truncation=truncation)
    normal = prior.final if isinstance(prior, AnnealedNormalPrior) else prior
    if not isinstance(normal, NormalPrior):
        raise bad_kind("truncated_prior", "prior", "a NormalPrior", prior)
    if truncation == math.inf and method == "threshold":
        return prior
    check_finite("truncated_prior", truncation=truncation)
    if method == "threshold":
        return TruncatedNormalPrior(normal.dim, threshold=truncation, std=normal.std)
    return TruncatedNormalPrior(normal.dim, threshold=RELEASED_THRESHOLD, std=truncation * normal.std)


def _sizes(shape: tuple[int | Sequence[int], ...]) -> torch.Size:
    """Read sizes as torch's factories do; torch words the error for what is no size."""
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    return torch.Size(cast("Sequence[int]", sizes))


def _truncated_variance(threshold: float) -> float:
    """E[t^2] of the standard normal distribution given |t| <= threshold."""
    if threshold > 40:
        return 1.0  # to the last digit of float64
    if threshold > 0.03:
        density = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
        return 1 - 2 * threshold * density / math.erf(threshold / math.sqrt(2))
    # The difference above cancels: divide the series of both integrals by that of the uniform distribution instead.
    square = threshold**2
    second, mass = 1 - 3 * square / 10 + 3 * square**2 / 56, 1 - square / 6 + square**2 / 40
    return square / 3 * second / mass
