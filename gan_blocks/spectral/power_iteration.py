"""Power iteration on a weight that is read as a matrix.

Tested in ``tests/spectral/test_power_iteration.py``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_blocks._precision import wide_dtype

__all__ = [
    "SHORTEST",
    "in_torch_order",
    "matrix_axes",
    "power_step",
    "power_steps",
    "quick_steps",
    "random_rows",
    "start_rows",
    "to_matrix",
    "to_memory_order",
    "to_torch_order",
    "to_weight",
]

# Elements up to which a weight is rather copied than its axes sorted. Measured on one CPU core, channels_last: 576
# elements 28 us by a copy, 52 us by sorting; 2,304 elements 33 against 51 us; 18,432 elements 59 against 45 us.
LARGEST_COPIED_WEIGHT = 8_192

SHORTEST = 1e-6
"""A vector that is shorter is none: it should have length 1."""


def power_step(matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    r"""Bring u and v one step nearer to the leading singular vectors of a matrix W, or of each in a stack.

    .. math:: v \leftarrow \frac{W^\top u}{\|W^\top u\|}, \qquad u \leftarrow \frac{W v}{\|W v\|}

    With n > 1 rows this is block power iteration: a QR decomposition makes the rows orthonormal, and the singular
    value decomposition of W on the span of v (Rayleigh-Ritz) pairs and sorts them: ``u[i] @ W @ v[i]`` estimates the
    i-th singular value from below. Where W is zero or holds a NaN, u and v stay: from zero they could never return.

    Args:
        matrix: W, in float32 or float64.
        u: Left vectors, rows orthonormal, of the dtype of ``matrix``.
        v: Right vectors; used only where they stay.

    Returns:
        The new u and v, rows orthonormal.

    Shape:
        - matrix: ``(..., out, rest)``
        - u: ``(..., n, out)``
        - v: ``(..., n, rest)``

    References:
        Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", algorithm 1.

    Example:
        >>> u, v = power_step(torch.diag(torch.tensor([3.0, 0.0])), torch.tensor([[0.6, 0.8]]), torch.zeros(1, 2))
        >>> u.tolist(), v.tolist()
        ([[1.0, 0.0]], [[1.0, 0.0]])
    """
    if u.shape[-2] == 1:
        smallest = torch.finfo(matrix.dtype).tiny
        new_v = F.normalize(u @ matrix, dim=-1, eps=smallest)
        image = new_v @ matrix.mT
        length = torch.linalg.vector_norm(image, dim=-1, keepdim=True)
        new_u, alive = image / length.clamp_min(smallest), length > 0
    else:
        basis = torch.linalg.qr((u @ matrix).mT).Q.mT
        image = basis @ matrix.mT
        q, r = torch.linalg.qr(image.mT)
        # LAPACK raises on a NaN; a diverged weight must show in the loss, not here.
        left, _, right = torch.linalg.svd(r.nan_to_num())
        new_u, new_v = (q @ left).mT, right @ basis
        alive = image.abs().amax(dim=(-2, -1), keepdim=True) > 0
    return torch.where(alive, new_u, u), torch.where(alive, new_v, v)


def power_steps(
    matrix: Tensor, u: Tensor, v: Tensor, count: int, *, restart: int, branch: bool
) -> tuple[Tensor, Tensor]:
    """Take power iteration steps, from a new start where u is zero or not finite: no step could fix that.

    Args:
        matrix: W, in float32 or float64.
        u: Left vectors.
        v: Right vectors.
        count: How many steps.
        restart: How many from a new start with ``branch``; without it there are no more than the others take.
        branch: Whether to look at the values first. On the CPU that costs nothing, other devices would be waited for.

    Returns:
        The new u and v.

    Shape:
        As in :func:`power_step`.
    """
    if branch and u.shape[-2] == 1 and (rows := quick_steps(matrix, u, count)):
        return rows
    if not branch:
        u, v = _alive(u), _alive(v)
    new_u, new_v = _repeated(matrix, u, v, count)
    if not branch or (_have_length_1(new_u) and _have_length_1(new_v)):
        return new_u, new_v
    start = _alive(u)
    restarted_u, restarted_v = _repeated(matrix, start, _alive(v), max(restart, 1))
    kept = (start == u).flatten(-2).all(dim=-1)[..., None, None]
    return torch.where(kept, new_u, restarted_u), torch.where(kept, _alive(new_v), restarted_v)


def start_rows(like: Tensor) -> Tensor:
    """Return vectors to start from where there are none, each of length 1, always the same ones of a shape."""
    count, size = like.shape[-2:]
    row, column = (torch.arange(1, n + 1, device=like.device, dtype=like.dtype) for n in (count, size))
    return F.normalize((row[:, None] * column).cos(), dim=-1).expand_as(like)


def quick_steps(matrix: Tensor, u: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """What :func:`power_step` gives for one vector each, in half the calls; None where any is zero or not finite."""
    v, length = u, u.new_zeros(())
    for _ in range(count):
        v = u @ matrix
        v /= torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        u = v @ matrix.mT
        length = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
        u /= length
    shortest, longest = (end.item() for end in length.aminmax())
    return (u, v) if shortest > torch.finfo(matrix.dtype).tiny and longest < math.inf else None


def _repeated(matrix: Tensor, u: Tensor, v: Tensor, count: int) -> tuple[Tensor, Tensor]:
    for _ in range(count):
        u, v = power_step(matrix, u, v)
    return u, v


def _have_length_1(rows: Tensor) -> bool:
    square: float = torch.linalg.vector_norm(rows).item() ** 2
    return abs(square - rows[..., 0].numel()) < 0.5


def _alive(rows: Tensor) -> Tensor:
    """Return vectors as they are where they have a length, else new ones."""
    length = torch.linalg.vector_norm(rows, dim=(-2, -1), keepdim=True)
    return torch.where((length > SHORTEST) & length.isfinite(), rows, start_rows(rows))


def random_rows(count: int, size: int, *, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw ``count`` orthonormal rows of length ``size``, on the device of ``like``, in float32 or wider."""
    if like.is_meta:
        return torch.empty(count, size, device=like.device, dtype=wide_dtype(like))
    device = like.device if generator is None else generator.device
    draws = torch.randn(size, count, generator=generator, device=device, dtype=wide_dtype(like))
    rows: Tensor = torch.linalg.qr(draws).Q.mT
    return rows.contiguous().to(like.device)


def matrix_axes(weight: Tensor, dim: int) -> tuple[int, ...]:
    """Return the axes of a weight, ``dim`` first; those of a large weight follow as they do in memory.

    In torch's order a channels_last weight can only become a matrix by a copy, three times the cost of the product.
    A small weight is copied all the same: that costs less than to sort its axes and the vectors with them.
    """
    others = [axis for axis in range(weight.dim()) if axis != dim]
    if len(others) > 1 and not weight.is_contiguous() and weight.numel() > LARGEST_COPIED_WEIGHT:
        others.sort(key=lambda axis: -weight.stride()[axis])
    return (dim, *others)


def in_torch_order(axes: tuple[int, ...]) -> bool:
    """Whether the columns of a weight's matrix follow as its axes do."""
    return list(axes[1:]) == sorted(axes[1:])


def to_matrix(weight: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Read a weight as a matrix (out, rest), without a copy where its memory allows."""
    # Not einops: this runs at every read of every weight, and einops takes longer here than the product does.
    # Nor flatten, for which gradients of is_grads_batched have no rule.
    return (weight if axes[0] == 0 and in_torch_order(axes) else weight.permute(axes)).reshape(
        weight.shape[axes[0]], -1
    )


def to_weight(matrix: Tensor, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Undo :func:`to_matrix`: give a matrix (out, rest) the shape of ``weight``."""
    if axes[0] == 0 and in_torch_order(axes):
        return matrix.reshape(weight.shape)
    grid = matrix.reshape([weight.shape[axis] for axis in axes])
    return grid.permute([axes.index(axis) for axis in range(weight.dim())])


def to_memory_order(v: Tensor, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sort right vectors (n, rest) from torch's order of axes into the order of ``axes``."""
    if in_torch_order(axes):
        return v
    plain = sorted(axes[1:])
    grid = v.reshape(len(v), *(weight.shape[axis] for axis in plain))
    return grid.permute(0, *(1 + plain.index(axis) for axis in axes[1:])).flatten(1)


def to_torch_order(v: Tensor, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Undo :func:`to_memory_order`."""
    if in_torch_order(axes):
        return v
    grid = v.reshape(len(v), *(weight.shape[axis] for axis in axes[1:]))
    return grid.permute(0, *(1 + axes[1:].index(axis) for axis in sorted(axes[1:]))).flatten(1)
