"""Conditioning as the papers write it: one sample, one channel, one pixel at a time, in float64 numpy."""

import numpy as np


def embedding(table: np.ndarray, labels: list[int]) -> np.ndarray:
    return np.stack([table[label] for label in labels])


def embedding_mixture(table: np.ndarray, weights: list[list[float]]) -> np.ndarray:
    return np.array([sum(w * row for w, row in zip(sample, table, strict=True)) for sample in weights])


def full_skip_z(z: np.ndarray, c: np.ndarray, num_blocks: int) -> tuple[np.ndarray, list[np.ndarray]]:
    rows = np.array([[*z[sample], *c[sample]] for sample in range(len(z))])
    return rows, [rows for _ in range(num_blocks)]


def hierarchical_skip_z(z: np.ndarray, c: np.ndarray, num_blocks: int) -> tuple[np.ndarray, list[np.ndarray]]:
    width = z.shape[1] // (num_blocks + 1)
    stem = np.array([row[:width] for row in z])
    conditions = []
    for block in range(1, num_blocks + 1):
        first = block * width
        conditions.append(np.array([[*z[n][first : first + width], *c[n]] for n in range(len(z))]))
    return stem, conditions


def no_skip_z(z: np.ndarray, c: np.ndarray, num_blocks: int) -> tuple[np.ndarray, list[np.ndarray]]:
    return z, [c for _ in range(num_blocks)]


def projection_logits(
    h: np.ndarray, labels: list[int], weight: np.ndarray, bias: float, table: np.ndarray
) -> list[float]:
    logits = []
    for features, label in zip(h, labels, strict=True):
        unconditional = bias + sum(w * f for w, f in zip(weight, features, strict=True))
        logits.append(unconditional + sum(v * f for v, f in zip(table[label], features, strict=True)))
    return logits


def conditional_batch_norm(
    x: np.ndarray,
    condition: np.ndarray,
    gain_weight: np.ndarray,
    bias_weight: np.ndarray,
    eps: float,
    moments: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Normalize by the batch's own population moments, or by given ones, then modulate each sample's channels."""
    batch, channels, height, width = x.shape
    y = np.empty_like(x)
    for channel in range(channels):
        values = [x[n, channel, i, j] for n in range(batch) for i in range(height) for j in range(width)]
        mean = sum(values) / len(values) if moments is None else moments[0][channel]
        variance = sum((v - mean) ** 2 for v in values) / len(values) if moments is None else moments[1][channel]
        for n in range(batch):
            gain = 1 + sum(w * c for w, c in zip(gain_weight[channel], condition[n], strict=True))
            bias = sum(w * c for w, c in zip(bias_weight[channel], condition[n], strict=True))
            for i in range(height):
                for j in range(width):
                    y[n, channel, i, j] = (x[n, channel, i, j] - mean) / (variance + eps) ** 0.5 * gain + bias
    return y


def class_batch_norm(
    x: np.ndarray,
    labels: list[int],
    gain_table: np.ndarray,
    bias_table: np.ndarray,
    eps: float,
    moments: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Normalize as above, then scale by one plus the class's gain, and shift by its bias."""
    batch, channels, height, width = x.shape
    y = np.empty_like(x)
    for channel in range(channels):
        values = [x[n, channel, i, j] for n in range(batch) for i in range(height) for j in range(width)]
        mean = sum(values) / len(values) if moments is None else moments[0][channel]
        variance = sum((v - mean) ** 2 for v in values) / len(values) if moments is None else moments[1][channel]
        for n, i, j in np.ndindex(batch, height, width):
            normalized = (x[n, channel, i, j] - mean) / (variance + eps) ** 0.5
            y[n, channel, i, j] = (1 + gain_table[labels[n]][channel]) * normalized + bias_table[labels[n]][channel]
    return y
