"""Latent distributions from their definitions, with the Python standard library alone."""

import bisect
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


def appendix_e_sample(name: str, dim: int, source: random.Random) -> list[float]:
    """One latent vector, drawn as Appendix E (for "spherical": ProGAN, Appendix A.1) words it."""

    def normals() -> list[float]:
        return [source.gauss(0, 1) for _ in range(dim)]

    if name == "normal":
        return normals()
    if name == "uniform":
        return [source.uniform(-1, 1) for _ in range(dim)]
    if name == "bernoulli":
        return [float(source.choice([0, 1])) for _ in range(dim)]
    if name == "censored":
        return [max(t, 0.0) for t in normals()]
    if name == "rademacher":
        return [float(source.choice([-1, 1])) for _ in range(dim)]
    if name == "categorical":
        return [float(source.choice([-1, 0, 1])) for _ in range(dim)]
    if name == "spike and slab":
        return [t * source.choice([0, 1]) for t in normals()]
    if name == "normal and bernoulli":
        return [source.gauss(0, 1) if i < dim / 2 else float(source.choice([0, 1])) for i in range(dim)]
    if name == "variable variance":  # sigma_l = 0.5, sigma_h = 3.5
        sigma = source.uniform(0.5, 3.5)
        return [math.sqrt(sigma) * t for t in normals()]
    if name == "spherical":
        t = normals()
        return [math.sqrt(dim) * x / math.sqrt(sum(y * y for y in t)) for x in t]
    raise ValueError(name)


def kolmogorov_smirnov_between(first: list[float], second: list[float]) -> float:
    """Largest distance between the empirical distribution functions of two samples, which may have ties."""
    first, second = sorted(first), sorted(second)
    return max(
        abs(bisect.bisect_right(first, v) / len(first) - bisect.bisect_right(second, v) / len(second))
        for v in [*first, *second]
    )
