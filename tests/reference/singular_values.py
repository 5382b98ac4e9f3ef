"""Singular values by one-sided Jacobi rotations: columns are made orthogonal pair by pair, in Python numbers."""

import math


def singular_values(matrix: list[list[float]]) -> list[float]:
    """Return all singular values of a matrix given as rows, largest first."""
    columns = [list(column) for column in zip(*matrix, strict=True)]
    for _ in range(60):
        rotated = False
        for i in range(len(columns)):
            for j in range(i + 1, len(columns)):
                rotated |= _make_orthogonal(columns, i, j)
        if not rotated:
            break
    norms = sorted((math.sqrt(sum(x * x for x in column)) for column in columns), reverse=True)
    return norms[: min(len(matrix), len(columns))]


def _make_orthogonal(columns: list[list[float]], i: int, j: int) -> bool:
    a = sum(x * x for x in columns[i])
    b = sum(y * y for y in columns[j])
    c = sum(x * y for x, y in zip(columns[i], columns[j], strict=True))
    if abs(c) <= 1e-15 * math.sqrt(a * b):
        return False
    zeta = (b - a) / (2 * c)
    tangent = math.copysign(1.0, zeta) / (abs(zeta) + math.sqrt(1 + zeta * zeta))
    cosine = 1 / math.sqrt(1 + tangent * tangent)
    sine = cosine * tangent
    pairs = list(zip(columns[i], columns[j], strict=True))
    columns[i] = [cosine * x - sine * y for x, y in pairs]
    columns[j] = [sine * x + cosine * y for x, y in pairs]
    return True
