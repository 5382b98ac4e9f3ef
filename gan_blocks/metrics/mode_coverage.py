"""How many modes of known data have samples: of a mixture of points, or of classes that a classifier tells apart.

Tested in ``tests/metrics/test_mode_coverage.py``.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gan_blocks._checks import bad_shape, bad_value, check_positive, check_rank, check_sizes
from gan_blocks._precision import to_float64, wide_dtype

__all__ = ["DiscreteModeCoverage", "ModeCoverage", "discrete_mode_coverage", "mode_coverage"]


class ModeCoverage(NamedTuple):
    """Quality and coverage of samples from a mixture whose modes are known."""

    high_quality: float
    """Share of the samples within the radius of their nearest mode, from 0 to 1."""
    recovered: float
    """Share of the modes that have at least one high-quality sample, from 0 to 1."""
    counts: Tensor
    """High-quality samples of each mode, int64, ``(modes,)``."""


def mode_coverage(samples: Tensor, modes: Tensor, *, radius: float) -> ModeCoverage:
    """Count the samples near each mode of a mixture.

    A sample belongs to its nearest mode, and is of high quality if it is at most ``radius`` away from it. One sample
    recovers a mode, so the share of recovered modes grows with the number of samples: compare equal numbers. A sample
    with NaN or infinite coordinates is near no mode.

    Args:
        samples: Generated points.
        modes: The centers of the mixture's components.
        radius: The largest distance of a high-quality sample, greater than 0; the paper: 4 standard deviations.

    Returns:
        The two shares, and the counts that they come from.

    Shape:
        - samples: ``(batch, dimensions)``, at least one
        - modes: ``(modes, dimensions)``, at least one

    Raises:
        ValueError: If a shape is not the one above, or ``radius`` is not greater than 0.

    References:
        Azadi et al. 2018, "Discriminator Rejection Sampling"; Sinha et al. 2020, "Top-k Training of GANs", section 4.1.

    Example:
        >>> modes = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
        >>> samples = torch.tensor([[0.1, 0.0], [0.0, 0.2], [1.0, 0.0], [0.0, -0.1]])
        >>> coverage = mode_coverage(samples, modes, radius=0.5)
        >>> coverage.high_quality, coverage.recovered, coverage.counts.tolist()
        (0.75, 0.5, [3, 0])
    """
    owner = "mode_coverage"
    check_positive(owner, radius=radius)
    check_rank(owner, "samples", samples, ("batch", "dimensions"))
    check_rank(owner, "modes", modes, ("modes", "dimensions"))
    if samples.shape[0] == 0:
        raise bad_shape(owner, "samples", "(batch, dimensions) with at least one sample", samples)
    if modes.shape[0] == 0 or modes.shape[1] != samples.shape[1]:
        raise bad_shape(owner, "modes", f"(modes, {samples.shape[1]}) with at least one mode", modes)
    samples = samples.to(wide_dtype(samples))
    # Differences, not the matrix product that cdist takes for large inputs: that loses the digits of short distances.
    distances = torch.cdist(samples, modes.to(samples.dtype), compute_mode="donot_use_mm_for_euclid_dist")
    distance, nearest = distances.min(dim=1)
    counts = torch.bincount(nearest[distance <= radius], minlength=modes.shape[0])
    return ModeCoverage(
        high_quality=int(counts.sum()) / samples.shape[0],
        recovered=int((counts > 0).sum()) / modes.shape[0],
        counts=counts,
    )


class DiscreteModeCoverage(NamedTuple):
    """Coverage of modes that are equally probable in the data."""

    covered: int
    """Modes with at least one sample."""
    kl_divergence: float
    """Kullback-Leibler divergence of the samples' modes from uniform, in nats, from 0 to log(num_modes)."""
    counts: Tensor
    """Samples of each mode, int64, ``(modes,)``."""


def discrete_mode_coverage(modes: Tensor, *, num_modes: int) -> DiscreteModeCoverage:
    r"""Count the modes that have samples, and measure how unevenly the samples are spread over them.

    With K modes and the share :math:`p_k` of the samples that are of mode k,

    .. math:: \text{KL}(p \,\|\, u) = \sum_{k:\, p_k > 0} p_k \log (K p_k)

    One sample covers a mode, and n perfect samples still have a divergence of about :math:`(K - 1) / 2n`: compare equal
    numbers, and state what real data gives.

    Args:
        modes: The mode of each sample, integers from 0 to ``num_modes - 1``, such as a classifier's.
        num_modes: Number K of modes, at least 1.

    Returns:
        The number of covered modes, the divergence, and the counts that they come from.

    Shape:
        - modes: ``(batch,)``, at least one

    Raises:
        TypeError: If ``modes`` is not of an integer dtype.
        ValueError: If ``modes`` has another shape, or a value or ``num_modes`` is out of range.

    References:
        Metz et al. 2017, "Unrolled Generative Adversarial Networks"; Karras et al. 2018, Appendix E.

    Example:
        >>> coverage = discrete_mode_coverage(torch.tensor([0, 0, 0, 3]), num_modes=4)
        >>> coverage.covered, round(coverage.kl_divergence, 3), coverage.counts.tolist()
        (2, 0.824, [3, 0, 0, 1])
    """
    owner = "discrete_mode_coverage"
    check_sizes(owner, num_modes=num_modes)
    if modes.dtype == torch.bool or modes.is_floating_point() or modes.is_complex():
        raise TypeError(f"{owner}: `modes` must be of an integer dtype, but got {modes.dtype}.")
    if modes.dim() != 1 or modes.numel() == 0:
        raise bad_shape(owner, "modes", "(batch,) with at least one sample", modes)
    low, high = int(modes.min()), int(modes.max())
    if low < 0 or high >= num_modes:
        raise bad_value(owner, "modes", f"from 0 to {num_modes - 1}", low if low < 0 else high)
    counts = torch.bincount(modes.to(torch.int64), minlength=num_modes)
    shares = to_float64(counts[counts > 0]) / modes.numel()
    return DiscreteModeCoverage(
        covered=shares.numel(),
        kl_divergence=(shares * (shares.log() + math.log(num_modes))).sum().item(),
        counts=counts,
    )
