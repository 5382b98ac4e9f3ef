"""Exact area resampling, which Pillow offers for whole factors only.

Pillow's BOX filter counts each source pixel whole or not at all, so at a factor such as 375 / 128 it weighs pixels on
the edge of a window wrongly. torch's ``interpolate(mode="area")`` has the same flaw.

Tested in ``tests/engine/data/test_resampling.py``.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["area_resample"]

_BLOCK = 8
_Float = Literal["float32", "float64"]


def area_resample(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Shrink a square image to the mean of the area that each new pixel covers, rounded to the nearest level.

    A source pixel on the edge of a window counts by the part of it inside. The sums are exact integers, so the result
    is the same on every machine; halves are rounded up.

    Args:
        pixels: Image of any number of channels.
        size: New height and width, at most the old ones.

    Returns:
        The shrunk image, contiguous.

    Shape:
        - pixels: ``(side, side, channels)``
        - returns: ``(size, size, channels)``

    Raises:
        ValueError: If the image is not square or smaller than ``size``.
    """
    side = len(pixels)
    if pixels.shape[:2] != (side, side) or not 0 < size <= side:
        raise ValueError(f"area_resample: cannot shrink pixels of shape {pixels.shape} to size={size}.")
    # float32 holds the sums over one axis exactly below side 65,793; both axes together need float64.
    rows = _weighted_sums(pixels, size, "float32" if side < 65_793 else "float64")
    total = _weighted_sums(rows.swapaxes(0, 1), size, "float64")
    total += side * side / 2
    total /= side * side
    return np.ascontiguousarray(total.astype(np.uint8).swapaxes(0, 1))


def _weighted_sums(pixels: NDArray[np.generic], size: int, dtype: _Float) -> NDArray[np.floating]:
    """Sum the first axis over ``size`` windows of equal length, in units of 1 / size of a pixel."""
    flat = pixels.reshape(len(pixels), -1)
    sums = np.empty((size, flat.shape[1]), dtype)
    for first, start, weights in _windows(len(flat), size, dtype):
        columns = flat[start : start + weights.shape[1]].astype(dtype)
        np.matmul(weights, columns, out=sums[first : first + len(weights)])
    return sums.reshape(size, *pixels.shape[1:])


@lru_cache(maxsize=1024)
def _windows(side: int, size: int, dtype: _Float) -> list[tuple[int, int, NDArray[np.floating]]]:
    """Return blocks of windows: the first window, its first pixel, and how much of each pixel each window covers.

    Covers are whole numbers of 1 / size. One matrix for all windows would be nearly all zeros, one for each would spend
    the time in calls.
    """
    blocks = []
    for first in range(0, size, _BLOCK):
        window = np.arange(first, min(first + _BLOCK, size))[:, None]
        start, stop = first * side // size, -(-(window[-1, 0] + 1) * side // size)
        pixel = np.arange(start, stop)
        cover = np.minimum((pixel + 1) * size, (window + 1) * side) - np.maximum(pixel * size, window * side)
        blocks.append((first, start, cover.clip(min=0).astype(dtype)))
    return blocks
