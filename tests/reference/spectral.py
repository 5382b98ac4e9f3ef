"""Spectral normalization and clamping as the papers write them, in float64 NumPy."""

import numpy as np

Array = np.ndarray


def as_matrix(weight: Array, dim: int) -> Array:
    """One row per index of ``dim``; the columns run over the other axes in their order, the last one fastest."""
    others = [axis for axis in range(weight.ndim) if axis != dim]
    rows = []
    for index in range(weight.shape[dim]):
        row = []
        for rest in np.ndindex(*(weight.shape[axis] for axis in others)):
            position = list(rest)
            position.insert(dim, index)
            row.append(weight[tuple(position)])
        rows.append(row)
    return np.array(rows)


def power_step(matrix: Array, u: Array) -> tuple[Array, Array]:
    """Miyato et al. 2018, algorithm 1: v from u, then u from v."""
    v = np.array([sum(matrix[i, j] * u[i] for i in range(len(u))) for j in range(matrix.shape[1])])
    v = v / sum(value * value for value in v) ** 0.5
    u = np.array([sum(matrix[i, j] * v[j] for j in range(len(v))) for i in range(matrix.shape[0])])
    return u / sum(value * value for value in u) ** 0.5, v


def sigma(matrix: Array, u: Array, v: Array) -> float:
    return sum(u[i] * matrix[i, j] * v[j] for i in range(len(u)) for j in range(len(v)))


def spectral_norm(weight: Array, u: Array, v: Array, dim: int, eps: float) -> Array:
    return weight / max(sigma(as_matrix(weight, dim), u, v), eps)


def spectral_norm_gradient(matrix: Array, u: Array, v: Array, upstream: Array) -> Array:
    """Miyato et al. 2018, equation 10 for an arbitrary gradient: (G - <G, W / sigma> u v^T) / sigma."""
    scale = sigma(matrix, u, v)
    return (upstream - np.sum(upstream * matrix / scale) * np.outer(u, v)) / scale


def ritz_values(matrix: Array, u: Array) -> Array:
    """The singular values of the matrix on the span of its transpose's images of u's rows."""
    left, _, _ = np.linalg.svd(matrix.T @ u.T, full_matrices=False)
    return np.linalg.svd(matrix @ left, compute_uv=False)


def clamp_first_singular_value(matrix: Array, bound: float) -> Array:
    """Brock et al. 2018, equation 4, by a full decomposition put together again term by term."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return sum((min(s[i], bound) if i == 0 else s[i]) * np.outer(u[:, i], vt[i]) for i in range(len(s)))
