"""Exact area resampling, which Pillow offers for whole factors only.

Pillow's BOX filter counts each source pixel whole or not at all, so at a factor such as 375 / 128 it weighs pixels on
the edge of a window wrongly. torch's ``interpolate(mode="area")`` has the same flaw.

Tested in ``tests/engine/data/test_resampling.py``.
"""

import math
import threading
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

__all__ = ["area_resample", "area_resample_planes"]

_LARGEST_BLOCK = 8  # windows
_BLOCKS = 16  # in a product
_LARGEST_KEPT = 16 * 2**20  # bytes


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
    return np.ascontiguousarray(area_resample_planes(pixels.transpose(2, 0, 1), size).transpose(1, 2, 0))


def area_resample_planes(planes: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The same for an image whose channels lie one after the other.

    Shape:
        - planes: ``(channels, side, side)``
        - returns: ``(channels, size, size)``

    Raises:
        ValueError: If the image is not square or smaller than ``size``.
    """
    channels, side, width = planes.shape
    if side != width or not 0 < size <= side:
        shape = (side, width, channels)
        raise ValueError(f"area_resample: cannot shrink pixels of shape {shape} to size={size}.")
    pixels = _SCRATCH.array("pixels", planes.shape, np.float32)
    np.copyto(pixels, planes)
    rows = _SCRATCH.array("rows", (channels, size, side), np.float32 if side < 65_793 else np.float64)
    _sum_windows(pixels, rows)
    rows -= 128 * side  # around gray, sums are half as large: float32 holds those over both axes up to a side of 362
    columns = rows.reshape(channels * size, side).T
    sums = _SCRATCH.array("sums", (size, channels * size), np.float32 if side <= 362 else np.float64)
    _sum_windows(columns.astype(sums.dtype, copy=False), sums)
    total = _SCRATCH.array("total", (channels * size, size), np.float64)
    np.copyto(total, sums.T)
    total += side * side * 128.5  # gray, and half a level to round by
    total /= side * side
    return total.astype(np.uint8).reshape(channels, size, size)


def _sum_windows(values: NDArray[Any], sums: NDArray[Any]) -> None:
    """Write the sums over windows of the last axis but one, ``(..., side, width)`` to ``(..., size, width)``."""
    *others, side, width = values.shape
    *strides, row, column = values.strides
    first = 0
    for start, step, weights in _windows(side, sums.shape[-2], sums.dtype.name):
        blocks, windows, length = weights.shape
        part = values[..., start:, :]
        parts = as_strided(part, (*others, blocks, length, width), (*strides, step * row, row, column))
        found = sums[..., first : first + blocks * windows, :]
        # One call for many blocks, in which no other thread has to wait for Python's lock.
        np.matmul(weights, parts, out=found.reshape(*others, blocks, windows, width))
        first += blocks * windows


class _Scratch(threading.local):
    """Memory that each thread uses again for every image: fresh memory takes longer to get than to compute in."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type[np.floating]) -> NDArray[Any]:
        """An array of any content, until the next one of this name."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > _LARGEST_KEPT:
            return np.empty(shape, dtype)
        if name not in self._kept or self._kept[name].nbytes < size:
            self._kept[name] = np.empty(size, np.uint8)
        return self._kept[name][:size].view(dtype).reshape(shape)


_SCRATCH = _Scratch()


@lru_cache(maxsize=1024)
def _windows(side: int, size: int, dtype: str) -> list[tuple[int, int, NDArray[np.floating]]]:
    """Divide windows into blocks, and those into groups in which each block begins as many pixels after the last.

    Covers are whole numbers of 1 / size. One matrix for all windows would be nearly all zeros, one for each would spend
    the time in calls.

    Returns:
        Of each group the first pixel, the pixels from block to block, and how much of each pixel of its block each
        window covers: ``(blocks, windows, pixels)``.
    """
    windows = max(number for number in range(1, _LARGEST_BLOCK + 1) if size % number == 0)
    step = windows * side // size
    groups = []
    for first in range(0, size, _BLOCKS * windows):
        last = min(first + _BLOCKS * windows, size)
        window = np.arange(first, last).reshape(-1, windows, 1)
        start, stop = first * side // size, -(-last * side // size)
        length = stop - start - (len(window) - 1) * step  # the last block ends with the group; no other one needs more
        pixel = start + step * np.arange(len(window))[:, None, None] + np.arange(length)
        cover = np.minimum((pixel + 1) * size, (window + 1) * side) - np.maximum(pixel * size, window * side)
        groups.append((start, step, cover.clip(min=0).astype(dtype)))
    return groups
