"""Metrics of features as the papers define them, one pair of samples at a time in float64."""

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Points = list[list[float]]


def squared_mmd(x: Points, y: Points) -> float:
    """Unbiased, of as many samples of each set, with the cubic kernel."""

    def kernel(a: list[float], b: list[float]) -> float:
        return (math.fsum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    count = len(x)
    different = [(i, j) for i in range(count) for j in range(count) if i != j]
    within = math.fsum(kernel(some[i], some[j]) for some in (x, y) for i, j in different) / len(different)
    return within - 2 * math.fsum(kernel(a, b) for a in x for b in y) / count**2


def classifier_score(logits: Points) -> float:
    """Of one part."""
    predictions = []
    for row in logits:
        weights = [math.exp(value - max(row)) for value in row]
        predictions.append([weight / math.fsum(weights) for weight in weights])
    marginal = [math.fsum(column) / len(predictions) for column in zip(*predictions, strict=True)]
    divergences = [
        math.fsum(p * math.log(p / q) for p, q in zip(prediction, marginal, strict=True) if p > 0)
        for prediction in predictions
    ]
    return math.exp(math.fsum(divergences) / len(divergences))


def neighbor_distance(points: Points, index: int, neighbors: int) -> float:
    """From one of the points to its k-th nearest among the others."""
    others = points[:index] + points[index + 1 :]
    return sorted(math.dist(points[index], other) for other in others)[neighbors - 1]


def precision_recall(real: Points, fake: Points, neighbors: int) -> tuple[float, float]:
    def share(points: Points, centers: Points) -> float:
        radii = [neighbor_distance(centers, index, neighbors) for index in range(len(centers))]
        inside = [
            any(math.dist(point, center) <= radius for center, radius in zip(centers, radii, strict=True))
            for point in points
        ]
        return sum(inside) / len(inside)

    return share(fake, real), share(real, fake)


def density_coverage(real: Points, fake: Points, neighbors: int) -> tuple[float, float]:
    radii = [neighbor_distance(real, index, neighbors) for index in range(len(real))]
    inside = [
        [math.dist(point, center) <= radius for point in fake] for center, radius in zip(real, radii, strict=True)
    ]
    density = sum(map(sum, inside)) / (neighbors * len(fake))
    return density, sum(map(any, inside)) / len(real)


def frechet_distance(real: Array, fake: Array) -> float:
    """By eigenvalues: the root of the product has the trace of the root of a symmetric matrix."""
    covariances = [np.atleast_2d(np.cov(features, rowvar=False)) for features in (real, fake)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(min=0)).sum()
    means = real.mean(axis=0) - fake.mean(axis=0)
    return float(means @ means + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * shared)
