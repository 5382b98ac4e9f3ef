"""Euclidean distances between images, in blocks that fit into memory, computed in float64.

Tested in ``tests/engine/evaluation/test_quality.py``.
"""

import math
from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from gan_blocks import Rows, nearest_neighbors

__all__ = ["mean_pairwise_distance", "nearest_distances"]

MAX_BLOCK_ELEMENTS = 2**24
MAX_BLOCK_ROWS = 4096


def mean_pairwise_distance(images: Rows) -> float:
    r"""Mean Euclidean distance over all ordered pairs of different images, an image with itself left out.

    .. math:: \frac{1}{n(n-1)} \sum_{i \ne j} \lVert x_i - x_j \rVert_2

    Args:
        images: At least two images, of shape ``(images, ...)``.
    """
    total = 0.0
    for start, rows in _blocks(images):
        # Rounding leaves a little on the diagonal, which stands for no pair.
        total += torch.cdist(rows, rows).fill_diagonal_(0).sum().item()
        for _, columns in _blocks(images, after=start + len(rows)):
            total += 2 * torch.cdist(rows, columns).sum().item()
    return total / (len(images) * (len(images) - 1))


def nearest_distances(queries: Rows, references: Rows, *, excluded: Tensor | None = None) -> Tensor:
    r"""Euclidean distance of every query to the nearest reference.

    .. math:: d_i = \min_{j \ne e_i} \lVert q_i - r_j \rVert_2

    Args:
        queries: Images of shape ``(queries, ...)``.
        references: Images of shape ``(references, ...)``.
        excluded: For every query the index of one reference that does not count (the query itself, where it is one of
            the references), int64 of shape ``(queries,)``.

    Returns:
        Distances in float64, of shape ``(queries,)``.
    """
    rows = _rows_at_once(queries)
    return nearest_neighbors(queries, references, excluded=excluded, rows_at_once=rows).distances[:, 0]


def _blocks(images: Rows, *, after: int = 0) -> Iterator[tuple[int, Tensor]]:
    """Number of the first image and flat images in float64, from the image ``after`` on."""
    rows = _rows_at_once(images)
    for start in range(after, len(images), rows):
        numbers = torch.arange(start, min(start + rows, len(images)))
        yield start, rearrange(images[numbers].detach(), "image ... -> image (...)").double()


def _rows_at_once(images: Rows) -> int:
    return max(1, min(MAX_BLOCK_ROWS, MAX_BLOCK_ELEMENTS // max(1, math.prod(images.shape[1:]))))
