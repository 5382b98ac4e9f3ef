"""The kernel distance between two sets of features, which has no bias however few they are.

Tested in ``tests/metrics/test_kernel.py``.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from gan_blocks._checks import bad_value, check_sizes, check_whole
from gan_blocks._precision import to_float64
from gan_blocks.metrics._samples import check_same_width, check_samples

__all__ = ["KernelDistance", "kernel_distance"]

ROWS_AT_ONCE = 512  # of each set
SUBSETS_AT_ONCE = 128  # that share what is computed of a pair of samples


class KernelDistance(NamedTuple):
    """The kernel distance of random subsets."""

    mean: float
    """Mean over the subsets: the estimate, 0 on average where both sets are of one distribution."""
    standard_deviation: float
    """Population standard deviation of the subsets' estimates (divisor: their count); 0 for one subset."""


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
    check_whole(owner, subset_size=subset_size)
    check_sizes(owner, num_subsets=num_subsets)
    if subset_size < 2:
        raise bad_value(owner, "subset_size", "at least 2", subset_size)
    for name, features in (("real_features", real_features), ("fake_features", fake_features)):
        check_samples(owner, name, features, subset_size, f"at least subset_size={subset_size} samples")
    check_same_width(owner, real_features, fake_features)
    sets = real_features, fake_features
    draws = [[_drawn(features, subset_size, generator) for features in sets] for _ in range(num_subsets)]
    distances = torch.cat(
        [
            _squared_mmd(
                *(_union(*part) for part in zip(sets, zip(*group, strict=True), strict=True)), count=subset_size
            )
            for group in _groups(draws, samples=sum(map(len, sets)))
        ]
    )
    deviation, mean = torch.std_mean(distances, correction=0)
    return KernelDistance(mean.item(), deviation.item())


class _Union(NamedTuple):
    """The samples of some subsets."""

    features: Tensor
    members: Tensor
    """1 where a sample is in a subset, float64, ``(samples, subsets)``."""


def _drawn(features: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    return torch.randperm(len(features), generator=generator)[:size].clone()


def _groups(draws: list[list[Tensor]], samples: int) -> Iterator[list[list[Tensor]]]:
    """Many subsets together, where all of the samples have no more pairs than these subsets, or else one by one."""
    together = min(len(draws), SUBSETS_AT_ONCE)
    in_subset = sum(map(len, draws[0]))
    size = together if samples**2 <= together * in_subset**2 else 1
    for start in range(0, len(draws), size):
        yield draws[start : start + size]


def _union(features: Tensor, subsets: Sequence[Tensor]) -> _Union:
    numbers, places = torch.stack(list(subsets)).unique(return_inverse=True)
    members = torch.zeros(len(subsets), len(numbers), dtype=torch.float64).scatter_(1, places, 1.0)
    return _Union(features[numbers.to(features.device)], members.mT)


def _squared_mmd(real: _Union, fake: _Union, *, count: int) -> Tensor:
    """The unbiased estimate of each subset, of ``count`` samples of either set, ``(subsets,)``."""
    within = _sums_within(real) + _sums_within(fake)
    return within / (count * (count - 1)) - 2 * _sums_between(real, fake) / count**2


def _sums_within(some: _Union) -> Tensor:
    """For each subset, the sum over all ordered pairs of different samples, computed from one order of each."""
    sums = torch.zeros(some.members.shape[1], dtype=torch.float64)
    for number, rows in enumerate(_blocks(some)):
        sums += _sums(_kernel(rows, rows).fill_diagonal_(0), rows, rows)
        for columns in _blocks(some, after=number):
            sums += 2 * _sums(_kernel(rows, columns), rows, columns)
    return sums


def _sums_between(real: _Union, fake: _Union) -> Tensor:
    """For each subset, the sum over all pairs of a sample of one set and one of the other."""
    sums = [_sums(_kernel(rows, columns), rows, columns) for rows in _blocks(real) for columns in _blocks(fake)]
    return torch.stack(sums).sum(dim=0)


def _blocks(some: _Union, *, after: int = -1) -> Iterator[_Union]:
    """Some samples at a time in float64, since there are too many pairs of all."""
    blocks = zip(some.features.split(ROWS_AT_ONCE), some.members.split(ROWS_AT_ONCE), strict=True)
    for features, members in islice(blocks, after + 1, None):
        wide = to_float64(features)
        yield _Union(wide, members.to(wide.device))


def _kernel(x: _Union, y: _Union) -> Tensor:
    return (x.features @ y.features.mT).div_(x.features.shape[1]).add_(1).pow_(3)


def _sums(kernel: Tensor, x: _Union, y: _Union) -> Tensor:
    """Of the kernel of all pairs, those that are in each subset."""
    return ((kernel @ y.members) * x.members).sum(dim=0).cpu()
