"""The largest singular values of a weight, with a bound on the error of each.

Tested in ``tests/spectral/singular_values/test_arnoldi.py``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gan_blocks._checks import bad_shape, bad_value, check_positive, check_whole
from gan_blocks._precision import exact_products, full_precision, wide_dtype
from gan_blocks.spectral.power_iteration import (
    matrix_axes,
    to_matrix,
    to_memory_order,
    to_torch_order,
)
from gan_blocks.spectral.singular_values._triplets import Settings, Triplets, leading_triplets, subspace_size

__all__ = ["SingularTriplets", "top_singular_triplets"]

_OWNER = "top_singular_triplets"
# Up to this size, stacking equal weights costs less than handling them one by one.
_SMALL = 2**19
_SMALLEST_NORM = 1e-10


class SingularTriplets(NamedTuple):
    """Singular values, largest first, with their vectors as rows: ``weight @ v[i]`` is ``s[i] * u[i]``."""

    u: Tensor
    """Left singular vectors, orthonormal, ``(k, out)``."""
    s: Tensor
    """Singular values, at least 0, ``(k,)``."""
    v: Tensor
    """Right singular vectors, orthonormal, ``(k, rest)``."""
    error_bound: Tensor
    """A singular value of the weight lies within this of ``s[i]``, ``(k,)``."""
    converged: Tensor
    """Where the bound is at most ``tol * s[0]``, ``(k,)``, bool."""
    subspace: Tensor
    """Orthonormal vectors of the shorter side whose span holds the singular ones, some more than k, for a later call to
    start from, ``(m, min(out, rest))``."""


@torch.no_grad()
def top_singular_triplets(
    weight: Tensor | Sequence[Tensor],
    k: int = 3,
    *,
    tol: float = 1e-4,
    max_matvecs: int = 4000,
    start: SingularTriplets | None = None,
    generator: torch.Generator | None = None,
) -> SingularTriplets:
    r"""Compute the k largest singular values of a weight and their vectors by Arnoldi's iteration.

    The weight is read as a matrix A of shape (out, rest). Of its sides the shorter one carries the Gram operator
    :math:`G = A A^\top` (or :math:`A^\top A`), whose leading eigenvectors a block Lanczos method finds, which is what
    Arnoldi's becomes for a symmetric operator: it applies G as two products with A while that converges fast, and
    else forms G. A side of up to 384 gets the direct eigendecomposition of G at once. A last Rayleigh-Ritz
    step on A itself gives the triplets, and from their residuals the bound

    .. math:: |\sigma - s_i| \le \sqrt{\|A v_i - s_i u_i\|^2 + \|A^\top u_i - s_i v_i\|^2}

    for some singular value :math:`\sigma` of A; an allowance for the rounding of the residuals themselves is added.
    What float32 cannot resolve (singular values below a thousandth of the largest, a smaller ``tol``) is done again
    in float64.

    **Which singular value?** The bound says that there is one. That it is the i-th was checked wherever G was formed:
    by its complete eigendecomposition, or by a Cholesky factorization that shows that no other exceeds
    :math:`s_k + tol \cdot s_0`. Where the two products with A converged first, it holds up to the small chance that
    a block with random vectors misses a direction. So such vectors are in every block, also beside a start, and a
    perfect start still takes three steps, or two for a ``tol`` above 2e-3. Measured on a 1000 x 1100 matrix with evenly
    spread values that was left alone but for one direction, which the start knew nothing of: grown to 1.3 times the
    largest value, it was found in 50 of 50 runs by three steps and in none by two; to twice the value, in all by both.

    Differences from the paper: it names the method but gives no settings; block size, restarts, stopping rule and
    the certificates are ours.

    Args:
        weight: A weight of any layer, its first dimension is "out"; or a list of equally shaped ones, whose results
            are stacked. Of any floating dtype; narrower ones than float32 are worked on in float32.
        k: How many triplets, from 1 to min(out, rest).
        tol: The error aimed at, relative to the largest singular value; greater than 0.
        max_matvecs: Most vectors that G may multiply, for each weight and precision, at least 1. When they are used
            up, what has been reached is returned with its bound. Direct decompositions do not count.
        start: An earlier result for this weight, or one near: saves work when the weight has changed a little. The
            search starts from its ``subspace`` and some random vectors, for what may have grown in between.
        generator: Source of the random start and fill; None takes a new one of seed 0, never torch's global one.

    Returns:
        The triplets in float32, or float64 for a float64 weight. They carry no gradient. On the meta device only
        their shapes have meaning.

    Shape:
        - weight: ``(out, ...)``
        - u: ``(k, out)``; v: ``(k, rest)``; s, error_bound and converged: ``(k,)``
        - subspace: ``(m, min(out, rest))`` with m the larger of 10 and k + 1, at most min(out, rest)
        - with a list of n weights, each with a leading n

    Raises:
        ValueError: If the weight has fewer than two dimensions, no entries, or NaN or infinite ones; if the list is
            empty or its shapes differ; if k, tol or max_matvecs is outside its range, or the vectors of ``start`` do
            not fit the weight.

    References:
        Brock et al. 2018, section 4.1; Golub and van der Vorst 2000, "Eigenvalue computation in the 20th century";
        Wu and Simon 2000, "Thick-restart Lanczos method".

    Example:
        >>> found = top_singular_triplets(torch.diag(torch.tensor([1.0, 4.0, 2.0, 3.0])), k=2)
        >>> [round(s, 4) for s in found.s.tolist()]
        [4.0, 3.0]
        >>> found.converged.tolist()
        [True, True]
    """
    single = isinstance(weight, Tensor)
    weights = [weight] if isinstance(weight, Tensor) else list(weight)
    if single and start is not None:
        start = SingularTriplets(*(field[None] for field in start))
    _check(weights, k, tol, max_matvecs, start, single=single)
    if weights[0].is_meta:
        found = _without_values(weights, k)
    else:
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        with full_precision(weights[0]), exact_products():
            found = _triplets_of(weights, start, Settings(k, tol, max_matvecs, generator))
    return SingularTriplets(*(field[0] for field in found)) if single else found


def _triplets_of(weights: list[Tensor], start: SingularTriplets | None, settings: Settings) -> SingularTriplets:
    first = weights[0]
    axes = matrix_axes(first, 0)
    matrices = [to_matrix(weight.detach().to(wide_dtype(weight)), axes) for weight in weights]
    guesses = None if start is None else _guesses(start, first, axes)
    # Large matrices are not worth a copy; a stack of one is a view.
    size = len(matrices) if matrices[0].numel() <= _SMALL else 1
    parts = []
    for begin in range(0, len(matrices), size):
        part = slice(begin, begin + size)
        stack = matrices[begin][None] if size == 1 else torch.stack(matrices[part])
        parts.append(_triplets_of_stack(stack, None if guesses is None else guesses[part], settings))
    u, s, v, bound, subspace = (torch.cat(field) for field in zip(*parts, strict=True))
    v = torch.stack([to_torch_order(rows, first, axes) for rows in v])
    if _is_tall(first):
        subspace = torch.stack([to_torch_order(rows, first, axes) for rows in subspace])
    return SingularTriplets(u, s, v, bound, (bound <= settings.tol * s[:, :1]) & s.isfinite(), subspace)


def _is_tall(weight: Tensor) -> bool:
    return weight.shape[0] > weight[0].numel()


def _triplets_of_stack(stack: Tensor, guess: Tensor | None, settings: Settings) -> tuple[Tensor, ...]:
    tall = stack.shape[-2] > stack.shape[-1]
    stack = stack if stack.mT.is_contiguous() else stack.contiguous()  # here once, or every product copies
    a = stack.mT if tall else stack
    found = _attempt(a, guess, settings)
    if found is None:
        scale = _power_of_two_scale(stack)
        found = leading_triplets(a / scale, guess, settings)
        found = found._replace(values=found.values * scale[:, 0], bound=found.bound * scale[:, 0])
    u, v = (found.right, found.left) if tall else (found.left, found.right)
    return u.mT, found.values, v.mT, found.bound, found.subspace.mT


def _attempt(a: Tensor, guess: Tensor | None, settings: Settings) -> Triplets | None:
    """Compute the triplets, None if the entries are suspicious: looking through all first would cost a product."""
    try:
        found = leading_triplets(a, guess, settings)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # from NaN, infinity, or squares that became infinite
        return None
    largest = found.values[:, 0]
    return found if ((largest > _SMALLEST_NORM) & (largest < 1 / _SMALLEST_NORM)).all() else None


def _power_of_two_scale(stack: Tensor) -> Tensor:
    """Return what to divide by, (batch, 1, 1), so that no square leaves the range of floats."""
    largest = stack.abs().amax(dim=(-2, -1), keepdim=True)
    if not largest.isfinite().all():
        raise bad_value(_OWNER, "weight", "finite", stack[~stack.isfinite()][0].item())
    return torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent)


def _guesses(start: SingularTriplets, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the vectors of the shorter side as columns, (batch, short, m)."""
    rows = start.subspace
    if _is_tall(weight):
        rows = torch.stack([to_memory_order(vectors, weight, axes) for vectors in rows])
    return rows.mT.to(weight.device, wide_dtype(weight))


def _without_values(weights: list[Tensor], k: int) -> SingularTriplets:
    first, n = weights[0], len(weights)
    out, rest = len(first), first[0].numel()
    u, v, s = (first.new_empty(n, k, *side, dtype=wide_dtype(first)) for side in ([out], [rest], []))
    subspace = u.new_empty(n, subspace_size(min(out, rest), k), min(out, rest))
    return SingularTriplets(u, s, v, s.clone(), s.bool(), subspace)


def _check(
    weights: list[Tensor], k: int, tol: float, max_matvecs: int, start: SingularTriplets | None, *, single: bool
) -> None:
    if not weights:
        raise bad_value(_OWNER, "weight", "a tensor or a list of at least one", weights)
    for weight in weights:
        if weight.dim() < 2 or weight.numel() == 0:
            raise bad_shape(_OWNER, "weight", "(out, ...) with at least two dimensions and one entry", weight)
        if not weight.is_floating_point():
            raise bad_value(_OWNER, "weight", "of a floating dtype", weight.dtype)
        if weight.shape != weights[0].shape:
            raise bad_shape(_OWNER, "weight", f"{tuple(weights[0].shape)}, like the first of the list", weight)
    out, rest = len(weights[0]), weights[0][0].numel()
    check_whole(_OWNER, k=k, max_matvecs=max_matvecs)
    if not 1 <= k <= min(out, rest):
        raise bad_value(_OWNER, "k", f"from 1 to min(out, rest) = {min(out, rest)}", k)
    check_positive(_OWNER, tol=tol, max_matvecs=max_matvecs)
    if start is not None:
        fields = [
            ("u", start.u, "k", out),
            ("v", start.v, "k", rest),
            ("subspace", start.subspace, "m", min(out, rest)),
        ]
        for name, vectors, rows, side in fields:
            if vectors.dim() != 3 or (vectors.shape[0], vectors.shape[2]) != (len(weights), side):
                shape = f"({rows}, {side})" if single else f"({len(weights)}, {rows}, {side})"
                raise bad_shape(_OWNER, f"start.{name}", shape, vectors[0] if single else vectors)
