"""Fidelity and variety apart: which samples of one set lie among those of the other, as far as its neighbors reach.

Around each sample of a set is the closed ball that reaches to its k-th nearest neighbor in that set, itself left out,
a copy of it not. The metrics ask which balls hold which samples of the other set. Distances are Euclidean, computed in
float64, and one that exceeds a radius by no more than the rounding counts as equal to it: copies and ties are inside,
as the definitions have it.

Tested in ``tests/metrics/test_neighborhoods.py``.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor

from gan_blocks._checks import check_positive, check_whole
from gan_blocks._precision import to_float64
from gan_blocks.metrics._samples import check_same_width, check_samples

__all__ = ["DensityCoverage", "PrecisionRecall", "density_coverage", "precision_recall"]

ROWS_AT_ONCE = 1024  # of each set; 16 MB of features for 2,048, and 8 MB of distances


class PrecisionRecall(NamedTuple):
    """How much of each set lies among the other."""

    precision: float
    """Share of the generated samples within the balls of the real ones, from 0 to 1: fidelity."""
    recall: float
    """Share of the real samples within the balls of the generated ones, from 0 to 1: variety."""


@torch.no_grad()
def precision_recall(real_features: Tensor, fake_features: Tensor, *, num_neighbors: int = 3) -> PrecisionRecall:
    r"""Estimate how much of what is generated could be real, and how much of what is real could be generated.

    With the balls :math:`B_k` around the samples of a set that reach to their k-th nearest neighbors in it,

    .. math:: \text{precision} = \frac{1}{m} \sum_{j=1}^{m} 1\Big[y_j \in \bigcup_i B_k(x_i)\Big], \qquad
        \text{recall} = \frac{1}{n} \sum_{i=1}^{n} 1\Big[x_i \in \bigcup_j B_k(y_j)\Big]

    for n real samples x and m generated ones y. A loss of modes lowers the recall, samples that resemble nothing lower
    the precision. One real outlier has a ball that may hold many poor samples; :func:`density_coverage` is robust
    against it. Two sets of one distribution do not reach 1. Compare numbers of equal features, counts and neighbors
    only; the paper takes 50,000 of each set.

    Takes time in the product of the counts, and memory for a few blocks of features and distances.

    Args:
        real_features: Features of real images, one row each, of any floating dtype; the paper's are of VGG-16.
        fake_features: Features of generated images; their number may differ.
        num_neighbors: Number k of the neighbor, at least 1.

    Returns:
        Precision and recall.

    Shape:
        - real_features: ``(samples, features)``, more than ``num_neighbors`` samples
        - fake_features: ``(samples', features)``, more than ``num_neighbors`` samples

    Raises:
        ValueError: If ``num_neighbors`` is less than 1, a set has another shape, too few samples or values that are
            not finite.
        TypeError: If a set is not floating point, or ``num_neighbors`` not whole.

    References:
        Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models", section 2.

    Example:
        >>> real = torch.tensor([[0.0], [1.0], [10.0], [11.0]])  # two modes
        >>> fake = torch.tensor([[0.0], [0.5], [1.0], [5.0]])  # one of them, and a sample between
        >>> precision_recall(real, fake, num_neighbors=1)
        PrecisionRecall(precision=0.75, recall=0.5)
    """
    owner = "precision_recall"
    _check_neighbors(owner, num_neighbors)
    for name, features in (("real_features", real_features), ("fake_features", fake_features)):
        check_samples(owner, name, features, num_neighbors + 1, _rule(num_neighbors))
    check_same_width(owner, real_features, fake_features)
    return PrecisionRecall(
        precision=_share_inside(fake_features, real_features, num_neighbors),
        recall=_share_inside(real_features, fake_features, num_neighbors),
    )


class DensityCoverage(NamedTuple):
    """How densely generated samples lie among the real ones, and how many of these have one near."""

    density: float
    """Mean number of real balls around a generated sample, over ``num_neighbors``; at least 0, and 1 is expected of
    real samples. It may be larger, where all are generated in dense places."""
    coverage: float
    """Share of the real samples whose ball holds a generated one, from 0 to 1."""


@torch.no_grad()
def density_coverage(real_features: Tensor, fake_features: Tensor, *, num_neighbors: int = 5) -> DensityCoverage:
    r"""Estimate fidelity and variety by the neighborhoods of real samples alone, which outliers hardly change.

    With the balls :math:`B_k` around the n real samples x that reach to their k-th nearest neighbors in the real set,
    and m generated samples y,

    .. math:: \text{density} = \frac{1}{k m} \sum_{j=1}^{m} \sum_{i=1}^{n} 1\big[y_j \in B_k(x_i)\big], \qquad
        \text{coverage} = \frac{1}{n} \sum_{i=1}^{n} 1\big[\exists j: y_j \in B_k(x_i)\big]

    For two sets of one distribution the density is 1 in expectation, and the coverage

    .. math:: 1 - \frac{(n - 1) \cdots (n - k)}{(m + n - 1) \cdots (m + n - k)},

    whatever that distribution: 0.97 for many samples of each and 5 neighbors, which is the paper's choice. In contrast
    to :func:`precision_recall` the balls of generated samples, which depend on the model, play no part.

    Takes time in the product of the counts, and memory for a few blocks of features and distances.

    Args:
        real_features: Features of real images, one row each, of any floating dtype.
        fake_features: Features of generated images; their number may differ.
        num_neighbors: Number k of the neighbor, at least 1.

    Returns:
        Density and coverage.

    Shape:
        - real_features: ``(samples, features)``, more than ``num_neighbors`` samples
        - fake_features: ``(samples', features)``, at least one sample

    Raises:
        ValueError: If ``num_neighbors`` is less than 1, a set has another shape, too few samples or values that are
            not finite.
        TypeError: If a set is not floating point, or ``num_neighbors`` not whole.

    References:
        Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models", section 3. The published
        code leaves out what lies at a radius exactly, such as copies of copied real samples.

    Example:
        >>> real = torch.tensor([[0.0], [1.0], [10.0], [11.0]])  # two modes
        >>> fake = torch.tensor([[0.0], [0.5], [1.0], [5.0]])  # one of them, and a sample between
        >>> density_coverage(real, fake, num_neighbors=1)
        DensityCoverage(density=1.5, coverage=0.5)
    """
    owner = "density_coverage"
    _check_neighbors(owner, num_neighbors)
    check_samples(owner, "real_features", real_features, num_neighbors + 1, _rule(num_neighbors))
    check_samples(owner, "fake_features", fake_features, 1, "at least one sample")
    check_same_width(owner, real_features, fake_features)
    balls, covered = 0, torch.zeros(len(real_features), dtype=torch.bool)
    for rows, _, inside in _inside_balls(real_features, fake_features, num_neighbors):
        balls += int(inside.sum())
        covered[rows] |= inside.any(dim=1).cpu()
    return DensityCoverage(
        density=balls / (num_neighbors * len(fake_features)),
        coverage=int(covered.sum()) / len(real_features),
    )


def _check_neighbors(owner: str, num_neighbors: int) -> None:
    check_whole(owner, num_neighbors=num_neighbors)
    check_positive(owner, num_neighbors=num_neighbors)


def _rule(num_neighbors: int) -> str:
    return f"more than num_neighbors={num_neighbors} samples"


def _share_inside(points: Tensor, centers: Tensor, num_neighbors: int) -> float:
    """The share of the points that are inside any ball."""
    found = torch.zeros(len(points), dtype=torch.bool)
    for _, columns, inside in _inside_balls(centers, points, num_neighbors):
        found[columns] |= inside.any(dim=0).cpu()
    return int(found.sum()) / len(points)


def _inside_balls(centers: Tensor, points: Tensor, num_neighbors: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Some centers, some points, and which of those balls hold which of these, ``(centers, points)``; all in turn."""
    # Not quite the mean, but near the data: what counts is that squares are no larger than they need to be.
    origin = reduce(to_float64(centers[:ROWS_AT_ONCE]), "sample feature -> 1 feature", "mean")
    for rows, some in _blocks(centers, origin):
        farthest = torch.full((len(some), num_neighbors), torch.inf, dtype=some.dtype, device=some.device)
        for columns, others in _blocks(centers, origin):
            distances = _squared_distances(some, others, rounding=1)
            if rows == columns:
                distances.fill_diagonal_(torch.inf)
            farthest = torch.cat([farthest, distances], dim=1).topk(num_neighbors, largest=False).values
        radii = farthest[:, -1:]
        for columns, others in _blocks(points, origin):
            yield rows, columns, _squared_distances(some, others, rounding=-1) <= radii


def _blocks(features: Tensor, origin: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        yield rows, to_float64(features[rows]) - origin


def _squared_distances(x: Tensor, y: Tensor, *, rounding: int) -> Tensor:
    """By the product of matrices, ten times as fast as by differences; plus or minus the most that it rounds off."""
    of_x, of_y = (reduce(each.square(), "sample feature -> sample", "sum") for each in (x, y))
    squares = rearrange(of_x, "row -> row 1") + of_y
    # Of n products, added up in any order, n half units in the last place are lost; here are two such sums and a few
    # operations more (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1).
    lost = (x.shape[1] + 4) * torch.finfo(x.dtype).eps
    return (1 + rounding * lost) * squares - 2 * (x @ y.mT)
