"""The kernel distance between two sets of features, which has no bias however few they are.

Tested in ``tests/metrics/test_kernel.py``.
"""

from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor

from gan_blocks._checks import bad_value, check_positive, check_whole
from gan_blocks._precision import to_float64
from gan_blocks.metrics._samples import check_same_width, check_samples

__all__ = ["KernelDistance", "kernel_distance"]

ROWS_AT_ONCE = 1024  # of each set


class KernelDistance(NamedTuple):
    """The kernel distance of random subsets."""

    mean: float
    """Mean over the subsets: the estimate, below 0 about as often as above where both sets are of one distribution."""
    standard_deviation: float
    """Standard deviation of a subset's estimate, divided by the count of subsets; 0 for one subset."""


@torch.no_grad()
def kernel_distance(
    real_features: Tensor,
    fake_features: Tensor,
    *,
    subset_size: int = 1000,
    num_subsets: int = 100,
    generator: torch.Generator | None = None,
) -> KernelDistance:
    r"""Compare two sets of features by their first three moments, without bias.

    With the kernel :math:`k(x, y) = (x^\top y / d + 1)^3` of d features and n samples of each set,

    .. math:: \text{MMD}^2 = \frac{1}{n (n - 1)} \sum_{i \ne j} \big(k(x_i, x_j) + k(y_i, y_j)\big)
        - \frac{2}{n^2} \sum_{i, j} k(x_i, y_j)

    is computed for random subsets, drawn without replacement from each set. With features of the Inception network it
    is the KID, of which papers often give a thousand times the value. The expectation for independent samples does not
    depend on their number, as that of :func:`frechet_distance` does, and is 0 where the first three moments of the
    distributions are the same. Sets of exactly as many samples of each class are not independent; two such sets of one
    distribution lie a little below 0. A common shift or scale of all features changes the distance.

    Subsets share samples. So the standard deviation says how much an estimate from one subset varies, not how exact
    the mean is. One subset of all samples, of sets of equal size, gives their estimate without any draw.

    Args:
        real_features: Features of real images, one row each, of any floating dtype; computed in float64.
        fake_features: Features of generated images; their number may differ.
        subset_size: Samples n of each set in a subset, at least 2 and no more than either set has.
        num_subsets: Number of subsets, at least 1.
        generator: Source of the subsets, on the CPU; None is torch's global one.

    Returns:
        Mean and standard deviation over the subsets.

    Shape:
        - real_features: ``(samples, features)``, at least ``subset_size`` samples
        - fake_features: ``(samples', features)``, at least ``subset_size`` samples

    Raises:
        ValueError: If a number is out of its range, a set has another shape, fewer samples than a subset or values
            that are not finite.
        TypeError: If a set is not floating point, or a number not whole.

    References:
        Binkowski et al. 2018, "Demystifying MMD GANs", section 4 and Appendix A; Gretton et al. 2012, "A Kernel
        Two-Sample Test", equation 3.

    Example:
        >>> real, fake = torch.zeros(2, 1), torch.ones(2, 1)
        >>> kernel_distance(real, fake, subset_size=2, num_subsets=1)  # 1 + 8 - 2 * 1
        KernelDistance(mean=7.0, standard_deviation=0.0)
    """
    owner = "kernel_distance"
    check_whole(owner, subset_size=subset_size, num_subsets=num_subsets)
    if subset_size < 2:
        raise bad_value(owner, "subset_size", "at least 2", subset_size)
    check_positive(owner, num_subsets=num_subsets)
    for name, features in (("real_features", real_features), ("fake_features", fake_features)):
        check_samples(owner, name, features, subset_size, f"at least subset_size={subset_size} samples")
    check_same_width(owner, real_features, fake_features)
    distances = torch.tensor(
        [
            _squared_mmd(
                _subset(real_features, subset_size, generator),
                _subset(fake_features, subset_size, generator),
            )
            for _ in range(num_subsets)
        ],
        dtype=torch.float64,
    )
    deviation, mean = torch.std_mean(distances, correction=0)
    return KernelDistance(mean.item(), deviation.item())


def _subset(features: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    return features[torch.randperm(len(features), generator=generator)[:size].to(features.device)]


def _squared_mmd(real: Tensor, fake: Tensor) -> float:
    """The unbiased estimate for as many samples of each set."""
    count = len(real)
    within = sum(_kernel_sum(some, some) - _own_kernel_sum(some) for some in (real, fake))
    return within / (count * (count - 1)) - 2 * _kernel_sum(real, fake) / count**2


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    """The sum over all pairs, in blocks, since a large subset has too many."""
    return sum(
        _kernel(to_float64(rows) @ to_float64(columns).mT, x.shape[1])
        for rows in x.split(ROWS_AT_ONCE)
        for columns in y.split(ROWS_AT_ONCE)
    )


def _own_kernel_sum(x: Tensor) -> float:
    """The sum over all pairs of a sample with itself."""
    squares = (reduce(to_float64(rows).square(), "sample feature -> sample", "sum") for rows in x.split(ROWS_AT_ONCE))
    return sum(_kernel(products, x.shape[1]) for products in squares)


def _kernel(products: Tensor, features: int) -> float:
    return ((products / features + 1) ** 3).sum().item()
