"""Training helpers from their definitions, in Python floats."""


def exponential_moving_average(history: list[list[float]], decays: list[float]) -> list[float]:
    """Sum over the history, each entry with its closed-form weight: (1 - d_k) times all later decays."""
    weights = []
    for k in range(len(history)):
        weight = 1.0 if k == 0 else 1 - decays[k - 1]
        for decay in decays[k:]:
            weight *= decay
        weights.append(weight)
    return [sum(w * entry[i] for w, entry in zip(weights, history, strict=True)) for i in range(len(history[0]))]


def interpolate(positions: list[float], values: list[float], x: float) -> float:
    """The piecewise linear function through the points, by its definition on each interval."""
    for number in range(len(positions) - 1):
        left, right = positions[number], positions[number + 1]
        if left <= x <= right:
            return values[number] * (right - x) / (right - left) + values[number + 1] * (x - left) / (right - left)
    assert positions == [x]
    return values[0]
