"""Metrics as the papers write them: loops in float64."""

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
FILTER = [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16]


def _mirror(index: int, size: int) -> int:
    if index < 0:
        return -index
    return 2 * (size - 1) - index if index >= size else index


def blur(image: Array) -> Array:
    """One channel, by the 5x5 product of the binomial filter with itself."""
    size = image.shape[0]
    y = np.zeros_like(image)
    for h, w in np.ndindex(image.shape):
        for i, a in enumerate(FILTER):
            for j, b in enumerate(FILTER):
                y[h, w] += a * b * image[_mirror(h + i - 2, size), _mirror(w + j - 2, size)]
    return y


def laplacian_pyramid(image: Array) -> list[Array]:
    """Bands of one channel, finest first."""
    size = image.shape[0]
    if size == 16:
        return [image]
    smaller = blur(image)[::2, ::2]
    spread = np.zeros_like(image)
    for h, w in np.ndindex(smaller.shape):
        spread[2 * h, 2 * w] = smaller[h, w]
    return [image - 4 * blur(spread), *laplacian_pyramid(smaller)]


def patches_at(bands: Array, places: Array, patch: int) -> Array:
    """Patches of (images, channels, size, size) whose upper left corners are ``places`` (images, 2, patches)."""
    found = []
    for n, band in enumerate(bands):
        for row, column in places[n].T:
            found.append(band[:, row : row + patch, column : column + patch])
    return np.array(found)


def sliced_wasserstein(x: Array, y: Array, directions: Array) -> float:
    """Distance of two sets of patches (patches, channels, h, w) along the columns of ``directions``, times 1,000."""
    sides = []
    for patches in (x, y):
        normal = np.empty_like(patches)
        for c in range(patches.shape[1]):
            channel = patches[:, c]
            mean = math.fsum(channel.ravel()) / channel.size
            deviation = math.sqrt(math.fsum((channel.ravel() - mean) ** 2) / channel.size)
            normal[:, c] = (channel - mean) / deviation
        sides.append(normal.reshape(len(patches), -1))
    distances = []
    for u in directions.T:
        length = math.sqrt(math.fsum(u**2))
        left, right = (sorted(float(row @ u) / length for row in side) for side in sides)
        distances.append(math.fsum(abs(a - b) for a, b in zip(left, right, strict=True)) / len(left))
    return 1000 * math.fsum(distances) / len(distances)
