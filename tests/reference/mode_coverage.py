"""Quality and coverage of a mixture's samples, one sample and one mode at a time."""

import math


def mode_coverage(
    samples: list[list[float]], modes: list[list[float]], radius: float
) -> tuple[float, float, list[int]]:
    counts = [0] * len(modes)
    for sample in samples:
        distances = [math.dist(sample, mode) for mode in modes]
        nearest = min(range(len(modes)), key=lambda index: distances[index])
        if distances[nearest] <= radius:
            counts[nearest] += 1
    return sum(counts) / len(samples), sum(count > 0 for count in counts) / len(modes), counts


def discrete_mode_coverage(modes: list[int], num_modes: int) -> tuple[int, float]:
    """Covered modes, and the divergence as a difference of entropies in float64."""
    counts = [sum(mode == wanted for mode in modes) for wanted in range(num_modes)]
    entropy = -math.fsum(count / len(modes) * math.log(count / len(modes)) for count in counts if count)
    return sum(count > 0 for count in counts), math.log(num_modes) - entropy
