"""Latent distributions from their definitions, with the Python standard library alone."""

import math
import random


def normal_cdf(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def truncated_normal_cdf(x: float, threshold: float) -> float:
    low, high = normal_cdf(-threshold), normal_cdf(threshold)
    return min(1.0, max(0.0, (normal_cdf(x) - low) / (high - low)))


def truncated_normal_even_moments(threshold: float) -> tuple[float, float]:
    """E[z^2] and E[z^4] given |z| <= threshold, by partial integration of the density."""
    density = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
    boundary = 2 * threshold * density / math.erf(threshold / math.sqrt(2))
    second = 1 - boundary
    return second, 3 * second - threshold**2 * boundary


def resampled_normal(count: int, threshold: float, seed: int) -> list[float]:
    """The paper's procedure to the letter: values that fall outside the range are drawn again."""
    source = random.Random(seed)
    values = []
    for _ in range(count):
        value = source.gauss(0, 1)
        while abs(value) > threshold:
            value = source.gauss(0, 1)
        values.append(value)
    return values


def kolmogorov_smirnov(values: list[float], cdf) -> float:
    """Largest distance between the empirical distribution function and ``cdf``."""
    ordered = sorted(values)
    n = len(ordered)
    return max(max((i + 1) / n - cdf(v), cdf(v) - i / n) for i, v in enumerate(ordered))
