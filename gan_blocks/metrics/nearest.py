"""The nearest of many samples, in blocks that fit into memory.

Distances are computed in float64: the fast form of ``torch.cdist`` takes the root of a difference of squares, which in
float32 would put about 0.02 between an image and its copy.

Tested in ``tests/metrics/test_nearest.py``.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import torch
from einops import rearrange
from torch import Tensor

from gan_blocks._checks import bad_shape, bad_value, check_sizes
from gan_blocks._precision import to_float64

__all__ = ["NearestNeighbors", "Rows", "nearest_neighbors"]

MAX_BLOCK_ELEMENTS = 2**24
MAX_BLOCK_ROWS = 4096


class Rows(Protocol):
    """Samples that are read by their numbers, so that they need not be in memory together.

    A tensor of samples is one; so is any object of yours that has what is listed here, such as the reader of a file.

    Shape:
        - shape: ``(samples, ...)``
        - numbers: ``(some,)``, int64
        - returns: the samples of these numbers in this order, ``(some, ...)``

    Example:
        >>> class Squares:
        ...     shape, device = torch.Size([100_000, 1]), torch.device("cpu")
        ...
        ...     def __len__(self):
        ...         return self.shape[0]
        ...
        ...     def __getitem__(self, numbers):
        ...         return numbers.double().square()[:, None]
        >>> nearest_neighbors(torch.tensor([[50.0]]), Squares()).numbers.item()
        7
    """

    @property
    def shape(self) -> torch.Size:
        """``(samples, ...)``."""

    @property
    def device(self) -> torch.device:
        """Where the samples that are read lie."""

    def __len__(self) -> int:
        """How many samples there are."""

    def __getitem__(self, numbers: Tensor, /) -> Tensor:
        """Read those of some numbers."""


class NearestNeighbors(NamedTuple):
    """The references nearest to every query, the nearest first."""

    distances: Tensor
    """Euclidean distances, float64 of shape ``(queries, num_neighbors)``."""
    numbers: Tensor
    """Numbers of these references, int64 of the same shape."""


@torch.no_grad()
def nearest_neighbors(
    queries: Tensor | Rows,
    references: Tensor | Rows,
    *,
    num_neighbors: int = 1,
    excluded: Tensor | None = None,
    rows_at_once: int | None = None,
) -> NearestNeighbors:
    r"""Search all references for the nearest of every query.

    .. math:: d_i = \min_{j \ne e_i} \lVert q_i - r_j \rVert_2

    and so on, up to the ``num_neighbors``-th. Takes time in the product of the counts, and memory for a few blocks of
    samples and distances: each set may also be :class:`Rows`, read by their numbers.

    Args:
        queries: Samples; what comes after their number is flattened.
        references: Samples of the same shape, at least ``num_neighbors``, and one more where some are excluded.
        num_neighbors: How many, at least 1.
        excluded: For every query the number of one reference that does not count: the query itself, where it is one of
            the references.
        rows_at_once: Samples of each set that are read at once, at least 1; None: up to 4096 and 128 MB.

    Returns:
        Distances and numbers.

    Shape:
        - queries: ``(queries, ...)``
        - references: ``(references, ...)``
        - excluded: ``(queries,)``, int64

    Raises:
        ValueError: If a number is less than 1, there are too few references, shapes do not fit, or a value is not
            finite.
        TypeError: If a number is not whole.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [5.0]])
        >>> found = nearest_neighbors(points, points, excluded=torch.arange(3))
        >>> found.distances.flatten().tolist(), found.numbers.flatten().tolist()
        ([1.0, 1.0, 4.0], [1, 0, 1])
    """
    owner = "nearest_neighbors"
    check_sizes(owner, num_neighbors=num_neighbors)
    if rows_at_once is not None:
        check_sizes(owner, rows_at_once=rows_at_once)
    least = num_neighbors + (excluded is not None)
    if len(references) < least or queries.shape[1:] != references.shape[1:]:
        pattern = ", ".join(map(str, ("references", *queries.shape[1:])))
        got = f"shape {tuple(references.shape)}"
        raise ValueError(f"{owner}: `references` must be of shape ({pattern}) with {least} or more, but got {got}.")
    if excluded is not None and excluded.shape != (len(queries),):
        raise bad_shape(owner, "excluded", f"({len(queries)},)", excluded)
    shape = len(queries), num_neighbors
    found = NearestNeighbors(
        torch.empty(shape, dtype=torch.float64, device=queries.device),
        torch.empty(shape, dtype=torch.int64, device=queries.device),
    )
    for start, rows in _blocks(owner, "queries", queries, rows_at_once):
        part = slice(start, start + len(rows))
        left_out = None if excluded is None else excluded[part].to(rows.device)
        nearest = _nearest(rows, _blocks(owner, "references", references, rows_at_once), num_neighbors, left_out)
        found.distances[part], found.numbers[part] = nearest
    return found


def _nearest(
    rows: Tensor, blocks: Iterable[tuple[int, Tensor]], num_neighbors: int, excluded: Tensor | None
) -> NearestNeighbors:
    """The nearest to each of some rows, among samples that come in blocks, each with the number of its first."""
    nearest = torch.full((len(rows), num_neighbors), torch.inf, dtype=rows.dtype, device=rows.device)
    numbers = torch.zeros_like(nearest, dtype=torch.int64)
    for start, columns in blocks:
        found = torch.cdist(rows, columns)
        if excluded is not None:
            place = excluded - start
            inside = torch.nonzero((place >= 0) & (place < len(columns))).flatten()
            found[inside, place[inside]] = torch.inf
        values, places = found.topk(min(num_neighbors, len(columns)), largest=False)
        nearest, order = torch.cat([nearest, values], dim=1).topk(num_neighbors, largest=False)
        numbers = torch.cat([numbers, places + start], dim=1).gather(1, order)
    return NearestNeighbors(nearest, numbers)


def _blocks(owner: str, name: str, samples: Tensor | Rows, rows_at_once: int | None) -> Iterator[tuple[int, Tensor]]:
    """Number of the first sample and flat samples in float64, which must be finite: NaN has no neighbors."""
    rows = rows_at_once or max(1, min(MAX_BLOCK_ROWS, MAX_BLOCK_ELEMENTS // max(1, math.prod(samples.shape[1:]))))
    for start in range(0, len(samples), rows):
        numbers = torch.arange(start, min(start + rows, len(samples)))
        block = to_float64(rearrange(samples[numbers], "sample ... -> sample (...)"))
        if not block.isfinite().all():
            first = start + int((~block.isfinite()).any(1).nonzero()[0])
            raise bad_value(owner, name, "finite", f"sample {first} with values that are not")
        yield start, block
