"""How many samples are near a mode of a known mixture, and how many of its modes have any.

Tested in ``tests/metrics/test_mode_coverage.py``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gan_blocks._checks import bad_shape, check_positive, check_rank

__all__ = ["ModeCoverage", "mode_coverage"]


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
        modes: The centres of the mixture's components.
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
    # Differences, not the matrix product that cdist takes for large inputs: that loses the digits of short distances.
    distances = torch.cdist(samples, modes.to(samples.dtype), compute_mode="donot_use_mm_for_euclid_dist")
    distance, nearest = distances.min(dim=1)
    counts = torch.bincount(nearest[distance <= radius], minlength=modes.shape[0])
    return ModeCoverage(
        high_quality=int(counts.sum()) / samples.shape[0],
        recovered=int((counts > 0).sum()) / modes.shape[0],
        counts=counts,
    )
