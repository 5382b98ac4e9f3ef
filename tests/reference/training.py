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
