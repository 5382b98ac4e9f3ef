"""Layers as the papers write them: loops over samples, channels and pixels, in float64."""

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def is_orthogonal(weight: Array, gain: float) -> bool:
    """The shorter side of the (out, rest) matrix is a set of orthogonal vectors, each of length ``gain``."""
    rows = [row.ravel() for row in weight]
    if len(rows) > len(rows[0]):
        rows = [np.array(column) for column in zip(*rows, strict=True)]
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            wanted = gain**2 if i == j else 0.0
            if not math.isclose(sum(p * q for p, q in zip(a, b, strict=True)), wanted, abs_tol=1e-9):
                return False
    return True


def upsample_nearest(x: Array) -> Array:
    batch, channels, height, width = x.shape
    y = np.empty((batch, channels, 2 * height, 2 * width))
    for n, c, h, w in np.ndindex(y.shape):
        y[n, c, h, w] = x[n, c, h // 2, w // 2]
    return y


def upsample_bilinear(x: Array) -> Array:
    """Every new pixel is interpolated at its center between the centers of the old ones, which continue outwards."""
    batch, channels, height, width = x.shape
    y = np.zeros((batch, channels, 2 * height, 2 * width))
    for n, c, h, w in np.ndindex(y.shape):
        row, column = (h + 0.5) / 2 - 0.5, (w + 0.5) / 2 - 0.5
        for i in (math.floor(row), math.floor(row) + 1):
            for j in (math.floor(column), math.floor(column) + 1):
                share = (1 - abs(row - i)) * (1 - abs(column - j))
                y[n, c, h, w] += share * x[n, c, min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
    return y


def downsample_average(x: Array) -> Array:
    batch, channels, height, width = x.shape
    y = np.empty((batch, channels, height // 2, width // 2))
    for n, c, h, w in np.ndindex(y.shape):
        y[n, c, h, w] = sum(x[n, c, 2 * h + i, 2 * w + j] for i in range(2) for j in range(2)) / 4
    return y


def equalized_scale(gain: float, fan_in: int) -> float:
    """The constant of section 4.1: He's standard deviation."""
    return gain / math.sqrt(fan_in)


def pixel_norm(x: Array, eps: float) -> Array:
    batch, channels, height, width = x.shape
    y = np.empty_like(x)
    for n, h, w in np.ndindex(batch, height, width):
        length = math.sqrt(math.fsum(float(x[n, j, h, w]) ** 2 for j in range(channels)) / channels + eps)
        for c in range(channels):
            y[n, c, h, w] = x[n, c, h, w] / length
    return y


def minibatch_stddev(x: Array, largest_group: int, eps: float) -> Array:
    """One number per sample: the mean standard deviation over its group, samples apart by a constant stride."""
    batch = x.shape[0]
    members = next(size for size in range(largest_group, 0, -1) if batch % size == 0)
    stride = batch // members
    values = np.empty(batch)
    for n in range(batch):
        group = [x[(n + k * stride) % batch] for k in range(members)]
        deviations = []
        for place in np.ndindex(x.shape[1:]):
            feature = [float(sample[place]) for sample in group]
            mean = math.fsum(feature) / members
            deviations.append(math.sqrt(math.fsum((value - mean) ** 2 for value in feature) / members + eps))
        values[n] = math.fsum(deviations) / len(deviations)
    return values


def minibatch_stddev_of_batch(x: Array) -> float:
    """Section 3 of ProGAN's paper, sentence by sentence: one value for the whole minibatch."""
    batch, channels, height, width = x.shape
    estimates = []
    for c, h, w in np.ndindex(channels, height, width):  # each feature in each spatial location, over the minibatch
        mean = math.fsum(float(x[n, c, h, w]) for n in range(batch)) / batch
        estimates.append(math.sqrt(math.fsum((float(x[n, c, h, w]) - mean) ** 2 for n in range(batch)) / batch + 1e-8))
    return math.fsum(estimates) / len(estimates)  # over all features and spatial locations


def adaptive_noise(x: Array, draws: Array, average: float) -> Array:
    """Appendix B of the same: ``draws`` is (batch, channels)."""
    batch, channels, height, width = x.shape
    magnitude = 0.2 * max(0.0, average - 0.5) ** 2
    y = np.empty_like(x)
    for n, c, h, w in np.ndindex(batch, channels, height, width):
        y[n, c, h, w] = x[n, c, h, w] * (1 + draws[n, c] * magnitude * math.sqrt(channels))
    return y


def minibatch_discrimination(f: Array, tensor: Array) -> Array:
    """The statistics o of Salimans et al.; ``tensor`` T is (in_features, kernels, kernel_dim)."""
    batch, features = f.shape
    kernels = tensor.shape[1]
    m = [[sum(f[i, a] * tensor[a, b] for a in range(features)) for b in range(kernels)] for i in range(batch)]
    o = np.zeros((batch, kernels))
    for i, b, j in np.ndindex(batch, kernels, batch):
        o[i, b] += math.exp(-float(np.abs(m[i][b] - m[j][b]).sum()))
    return o


def moments(values: Array) -> tuple[Array, Array]:
    """Mean and variance (divided by the count) of every channel of (batch, channels, height, width)."""
    means, variances = [], []
    for c in range(values.shape[1]):
        channel = [float(value) for value in values[:, c].ravel()]
        mean = math.fsum(channel) / len(channel)
        means.append(mean)
        variances.append(math.fsum((value - mean) ** 2 for value in channel) / len(channel))
    return np.array(means), np.array(variances)


def batch_norm(x: Array, mean: Array, variance: Array, gain: Array, bias: Array, eps: float) -> Array:
    y = np.empty_like(x)
    for n, c, h, w in np.ndindex(x.shape):
        y[n, c, h, w] = gain[c] * (x[n, c, h, w] - mean[c]) / math.sqrt(variance[c] + eps) + bias[c]
    return y


def self_attention(x: Array, theta: Array, phi: Array, g: Array, out: Array, gamma: float) -> Array:
    """The non-local block; theta, phi, g and out are (out_channels, in_channels) matrices."""
    batch, _, height, width = x.shape
    y = x.copy()
    for n in range(batch):
        keys = _pool_pixels(x[n], phi)
        values = _pool_pixels(x[n], g)
        for h, w in np.ndindex(height, width):
            scores = [math.exp(float((theta @ x[n, :, h, w]) @ key)) for key in keys]
            gathered = sum(score / sum(scores) * value for score, value in zip(scores, values, strict=True))
            y[n, :, h, w] += gamma * (out @ gathered)
    return y


def _pool_pixels(x: Array, matrix: Array) -> list[Array]:
    """The 2x2 maximum of ``matrix @ pixel``, one vector per square."""
    _, height, width = x.shape
    return [
        np.max([matrix @ x[:, 2 * h + i, 2 * w + j] for i in range(2) for j in range(2)], axis=0)
        for h, w in np.ndindex(height // 2, width // 2)
    ]


def standing_statistics(batches: list[Array], eps: float) -> list[tuple[Array, Array]]:
    """Pooled moments of both norms of the chain norm, ReLU, norm, each normalizing by the batch at hand."""
    first, second = [], []
    for x in batches:
        first.append(x)
        ones = np.ones(x.shape[1])
        second.append(np.maximum(batch_norm(x, *moments(x), ones, 0 * ones, eps), 0))
    return [moments(np.concatenate(values)) for values in (first, second)]
