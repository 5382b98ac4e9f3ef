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


def multiscale_ssim(x: Array, y: Array) -> float:
    """Similarity of two images (channels, height, width) in [0, 1], window by window."""
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    similarity = 1.0
    for scale, weight in enumerate(weights):
        size = min(11, *x.shape[1:])
        sigma = 1.5 * size / 11
        window = np.array(
            [
                [
                    math.exp(-((i - (size - 1) / 2) ** 2 + (j - (size - 1) / 2) ** 2) / (2 * sigma**2))
                    for j in range(size)
                ]
                for i in range(size)
            ]
        )
        window /= window.sum()
        terms = []
        for c, h, w in np.ndindex(x.shape[0], x.shape[1] - size + 1, x.shape[2] - size + 1):
            a, b = (image[c, h : h + size, w : w + size] for image in (x, y))
            mean_a, mean_b = float((window * a).sum()), float((window * b).sum())
            variance_a = float((window * (a - mean_a) ** 2).sum())
            variance_b = float((window * (b - mean_b) ** 2).sum())
            covariance = float((window * (a - mean_a) * (b - mean_b)).sum())
            term = (2 * covariance + 0.03**2) / (variance_a + variance_b + 0.03**2)
            if scale == len(weights) - 1:
                term *= (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            terms.append(term)
        similarity *= max(math.fsum(terms) / len(terms), 0.0) ** weight
        x, y = (
            np.array(
                [
                    [
                        [block[c, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2].mean() for w in range(block.shape[2] // 2)]
                        for h in range(block.shape[1] // 2)
                    ]
                    for c in range(block.shape[0])
                ]
            )
            for block in (x, y)
        )
    return similarity
