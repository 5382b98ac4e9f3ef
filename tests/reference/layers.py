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
