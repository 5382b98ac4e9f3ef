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

from gan_blocks._checks import bad_shape, check_sizes
from gan_blocks._precision import to_float64
from gan_blocks.metrics._samples import check_same_width, check_samples

__all__ = [
    "DensityCoverage",
    "NeighborhoodMembers",
    "PrecisionRecall",
    "density_coverage",
    "neighborhood_members",
    "neighborhood_radii",
    "precision_recall",
]

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
    rule = _check_neighbors(owner, num_neighbors)
    for name, features in (("real_features", real_features), ("fake_features", fake_features)):
        check_samples(owner, name, features, num_neighbors + 1, rule)
    check_same_width(owner, real_features, fake_features)
    balls, _, recalled = _members(real_features, fake_features, (num_neighbors,), num_neighbors)
    return PrecisionRecall(precision=_share(balls[0] > 0), recall=_share(recalled))


class DensityCoverage(NamedTuple):
    """How densely generated samples lie among the real ones, and how many of these have one near."""

    density: float
    """Mean number of real balls around a generated sample, over ``num_neighbors``; at least 0, and 1 is expected of
    real samples. It may be larger, where all are generated in dense places."""
    coverage: float
    """Share of the real samples whose ball holds a generated one, from 0 to 1."""


@torch.no_grad()
def density_coverage(real_features: Tensor, fake_features: Tensor, *, num_neighbors: int = 5) -> DensityCoverage:
    r"""Estimate fidelity and variety by only the neighborhoods of real samples, which outliers hardly change.

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
    rule = _check_neighbors(owner, num_neighbors)
    check_samples(owner, "real_features", real_features, num_neighbors + 1, rule)
    check_samples(owner, "fake_features", fake_features, 1, "at least one sample")
    check_same_width(owner, real_features, fake_features)
    balls, covered, _ = _members(real_features, fake_features, (num_neighbors,), None)
    return DensityCoverage(
        density=int(balls.sum()) / (num_neighbors * len(fake_features)),
        coverage=_share(covered[0]),
    )


class NeighborhoodMembers(NamedTuple):
    """Which samples make up precision and recall, density and coverage, which are means of these."""

    precise: Tensor
    """Whether a generated sample is inside a ball of a real one, bool, ``(fake,)``; the mean is the precision."""
    recalled: Tensor
    """Whether a real sample is inside a ball of a generated one, bool, ``(real,)``; the mean is the recall."""
    density: Tensor
    """Real balls around a generated sample, over their number of neighbors, float64, ``(fake,)``."""
    covered: Tensor
    """Whether a real sample's ball holds a generated one, bool, ``(real,)``; the mean is the coverage."""


@torch.no_grad()
def neighborhood_radii(features: Tensor, *, recall_neighbors: int = 3, density_neighbors: int = 5) -> Tensor:
    r"""Find the squared distances to the neighbors of real samples, to compare many sets with them.

    Args:
        features: Features of real images, one row each, of any floating dtype.
        recall_neighbors: Number k of the neighbor for precision and recall, at least 1.
        density_neighbors: Number k' of the neighbor for density and coverage, at least 1.

    Returns:
        Squared radii for both numbers in float64, each larger by the most that may have been rounded off.

    Shape:
        - features: ``(samples, features)``, more samples than either number of neighbors
        - returns: ``(samples, 2)``

    Raises:
        ValueError: As :func:`neighborhood_members` does.
        TypeError: As it does.

    Example:
        >>> real = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        >>> neighborhood_radii(real, recall_neighbors=1, density_neighbors=2)[0].round().tolist()
        [1.0, 100.0]
    """
    _check_both("neighborhood_radii", "features", features, recall_neighbors, density_neighbors)
    return _radii(features, _origin(features), (recall_neighbors, density_neighbors))


@torch.no_grad()
def neighborhood_members(
    real_features: Tensor,
    fake_features: Tensor,
    *,
    recall_neighbors: int = 3,
    density_neighbors: int = 5,
    real_radii: Tensor | None = None,
) -> NeighborhoodMembers:
    r"""Find which samples lie among those of the other set: what a poor precision or recall is due to.

    .. math:: \text{precise}_j = 1\Big[y_j \in \bigcup_i B_k(x_i)\Big], \qquad
        \text{density}_j = \frac{1}{k'} \sum_i 1\big[y_j \in B_{k'}(x_i)\big]

    with the terms of :func:`precision_recall` for k neighbors and of :func:`density_coverage` for k', whose values are
    the means. All four are found in half of the time of these two.

    Args:
        real_features: Features of real images, one row each, of any floating dtype.
        fake_features: Features of generated images; their number may differ.
        recall_neighbors: Number k of the neighbor for precision and recall, at least 1.
        density_neighbors: Number k' of the neighbor for density and coverage, at least 1.
        real_radii: What :func:`neighborhood_radii` gave for the real features and these numbers; None: it is found.

    Returns:
        A value for every sample, on the CPU.

    Shape:
        - real_features: ``(real, features)``, more samples than either number of neighbors
        - fake_features: ``(fake, features)``, more than ``recall_neighbors`` samples
        - real_radii: ``(real, 2)``

    Raises:
        ValueError: If a number of neighbors is less than 1, a set has another shape, too few samples or values that are
            not finite.
        TypeError: If a set is not floating point, or a number not whole.

    Example:
        >>> real = torch.tensor([[0.0], [1.0], [10.0], [11.0]])  # two modes
        >>> fake = torch.tensor([[0.0], [0.5], [1.0], [5.0]])  # one of them, and a sample between
        >>> members = neighborhood_members(real, fake, recall_neighbors=1, density_neighbors=1)
        >>> members.precise.tolist(), members.recalled.tolist()
        ([True, True, True, False], [True, True, False, False])
    """
    owner = "neighborhood_members"
    _check_both(owner, "real_features", real_features, recall_neighbors, density_neighbors)
    rule = f"more than recall_neighbors={recall_neighbors} samples"
    check_samples(owner, "fake_features", fake_features, recall_neighbors + 1, rule)
    check_same_width(owner, real_features, fake_features)
    if real_radii is not None and real_radii.shape != (len(real_features), 2):
        raise bad_shape(owner, "real_radii", f"({len(real_features)}, 2)", real_radii)
    counts = (recall_neighbors, density_neighbors)
    balls, covered, recalled = _members(real_features, fake_features, counts, recall_neighbors, real_radii)
    return NeighborhoodMembers(balls[0] > 0, recalled, balls[1].double() / density_neighbors, covered[1])


def _check_both(owner: str, name: str, features: Tensor, recall_neighbors: int, density_neighbors: int) -> None:
    check_sizes(owner, recall_neighbors=recall_neighbors, density_neighbors=density_neighbors)
    most = max(recall_neighbors, density_neighbors)
    check_samples(owner, name, features, most + 1, f"more than {most} samples")


def _share(members: Tensor) -> float:
    return int(members.sum()) / len(members)


def _check_neighbors(owner: str, num_neighbors: int) -> str:
    """Check the number; the rule for samples that follows from it."""
    check_sizes(owner, num_neighbors=num_neighbors)
    return f"more than num_neighbors={num_neighbors} samples"


def _members(
    real_features: Tensor,
    fake_features: Tensor,
    real_neighbors: tuple[int, ...],
    fake_neighbors: int | None,
    real_radii: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Which balls hold samples of the other set, by one pass over the pairs.

    Returns:
        For each of ``real_neighbors``: how many of these balls of real samples hold each generated one, ``(counts,
        fake)``, and which of them hold any, ``(counts, real)``; and which real samples are inside a ball of a generated
        one, ``(real,)``, if there is a number of neighbors for these.
    """
    origin = _origin(real_features)
    real_radii = _radii(real_features, origin, real_neighbors) if real_radii is None else real_radii.to(origin)
    fake_radii = None if fake_neighbors is None else _radii(fake_features, origin, (fake_neighbors,))
    balls = torch.zeros(len(real_neighbors), len(fake_features), dtype=torch.int64)
    covered = torch.zeros(len(real_neighbors), len(real_features), dtype=torch.bool)
    recalled = torch.zeros(len(real_features), dtype=torch.bool)
    for rows, some in _blocks(real_features, origin):
        for columns, others in _blocks(fake_features, origin):
            distances = _squared_distances(some, others, rounding=-1)
            for number in range(len(real_neighbors)):
                inside = distances <= real_radii[rows, number : number + 1]
                balls[number, columns] += inside.sum(dim=0).cpu()
                covered[number, rows] |= inside.any(dim=1).cpu()
            if fake_radii is not None:
                recalled[rows] |= (distances <= fake_radii[columns].mT).any(dim=1).cpu()
    return balls, covered, recalled


def _origin(features: Tensor) -> Tensor:
    """Not quite the mean, but near the data: what counts is that squares are no larger than they need to be."""
    return reduce(to_float64(features[:ROWS_AT_ONCE]), "sample feature -> 1 feature", "mean")


def _radii(features: Tensor, origin: Tensor, num_neighbors: tuple[int, ...]) -> Tensor:
    """Squared distances to some of the nearest neighbors, with the most that may have been rounded off."""
    nearest = torch.full((len(features), max(num_neighbors)), torch.inf, dtype=origin.dtype, device=origin.device)
    for rows, some in _blocks(features, origin):
        distances = _squared_distances(some, some, rounding=1).fill_diagonal_(torch.inf)
        nearest[rows] = _smallest(nearest[rows], distances)
        for columns, others in _blocks(features, origin, after=rows.stop):
            distances = _squared_distances(some, others, rounding=1)
            nearest[rows] = _smallest(nearest[rows], distances)
            nearest[columns] = _smallest(nearest[columns], distances.mT)
    return nearest[:, [number - 1 for number in num_neighbors]]


def _smallest(known: Tensor, more: Tensor) -> Tensor:
    """The smallest of each row, in ascending order, as many as are known already."""
    count = known.shape[1]
    of_more = more.topk(min(count, more.shape[1]), largest=False).values
    return torch.cat([known, of_more], dim=1).topk(count, largest=False, sorted=True).values


def _blocks(features: Tensor, origin: Tensor, *, after: int = 0) -> Iterator[tuple[slice, Tensor]]:
    for start in range(after, len(features), ROWS_AT_ONCE):
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
