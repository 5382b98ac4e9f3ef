"""Losses as the papers write them: one sample at a time, in float64 Python numbers."""

import math
from collections.abc import Callable
from itertools import product

Matrix = list[list[float]]


def hinge_discriminator_loss(real: list[float], fake: list[float], margin: float) -> float:
    on_real = sum(max(0.0, margin - value) for value in real) / len(real)
    on_fake = sum(max(0.0, margin + value) for value in fake) / len(fake)
    return on_real + on_fake


def hinge_generator_loss(fake: list[float]) -> float:
    return -sum(fake) / len(fake)


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def minimax_discriminator_loss(real: list[float], fake: list[float]) -> float:
    on_real = sum(math.log(probability(value)) for value in real) / len(real)
    on_fake = sum(math.log(1 - probability(value)) for value in fake) / len(fake)
    return -on_real - on_fake


def minimax_generator_loss(fake: list[float]) -> float:
    return sum(math.log(1 - probability(value)) for value in fake) / len(fake)


def non_saturating_generator_loss(fake: list[float]) -> float:
    return -sum(math.log(probability(value)) for value in fake) / len(fake)


def wasserstein_discriminator_loss(real: list[float], fake: list[float]) -> float:
    return sum(fake) / len(fake) - sum(real) / len(real)


def wasserstein_generator_loss(fake: list[float]) -> float:
    return -sum(fake) / len(fake)


def least_squares_discriminator_loss(real: list[float], fake: list[float]) -> float:
    on_real = sum((value - 1) ** 2 for value in real) / len(real)
    on_fake = sum((value - 0) ** 2 for value in fake) / len(fake)
    return 0.5 * on_real + 0.5 * on_fake


def least_squares_generator_loss(fake: list[float]) -> float:
    return 0.5 * sum((value - 1) ** 2 for value in fake) / len(fake)


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def orthogonal_penalty(filters: Matrix) -> float:
    """Equation 2, filters as rows."""
    pairs = product(range(len(filters)), repeat=2)
    return sum((dot(filters[i], filters[j]) - (1 if i == j else 0)) ** 2 for i, j in pairs)


def off_diagonal_penalty(filters: Matrix) -> float:
    """Equation 3, filters as rows; each pair counts twice."""
    pairs = product(range(len(filters)), repeat=2)
    return sum(dot(filters[i], filters[j]) ** 2 for i, j in pairs if i != j)


Slope = Callable[[list[float]], list[float]]


def r1_penalty(slope: Slope, real: Matrix, gamma: float) -> float:
    """Equation 5, for a critic whose gradient at a sample is ``slope(sample)``."""
    return gamma / 2 * sum(dot(slope(x), slope(x)) for x in real) / len(real)


def gradient_penalty(slope: Slope, real: Matrix, fake: Matrix, mix: list[float], lam: float, target: float) -> float:
    total = 0.0
    for x, g, t in zip(real, fake, mix, strict=True):
        between = [(1 - t) * a + t * b for a, b in zip(x, g, strict=True)]
        length = math.sqrt(dot(slope(between), slope(between)))
        total += lam * (length - target) ** 2 / target**2
    return total / len(real)


def drift_penalty(real: list[float], coefficient: float) -> float:
    return coefficient * sum(value**2 for value in real) / len(real)


def mode_seeking_penalty(images: tuple[Matrix, Matrix], z: tuple[Matrix, Matrix], eps: float) -> float:
    def distance(first: Matrix, second: Matrix) -> float:
        differences = [abs(a - b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)]
        return sum(differences) / len(differences)

    return 1 / (distance(*images) / distance(*z) + eps)
