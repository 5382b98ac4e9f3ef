"""Top-k training as the paper describes it, one sample at a time, on Python numbers."""

import math


def top_k_indices(scores: list[float], k: int) -> list[int]:
    """Pick the best remaining score k times, the first of equals, never NaN; in the order of the batch."""
    left = {index: score for index, score in enumerate(scores) if not math.isnan(score)}
    picked: list[int] = []
    while left and len(picked) < k:
        best = None
        for index in sorted(left):
            if best is None or left[index] > left[best]:
                best = index
        picked.append(best)
        del left[best]
    return sorted(picked)


def annealed_k(batch_size: int, gamma: float, floor: float, decays: int) -> float:
    """k <- max(gamma k, nu), decay by decay, never rounded."""
    k = float(batch_size)
    for _ in range(decays):
        k = max(gamma * k, floor)
    return k
