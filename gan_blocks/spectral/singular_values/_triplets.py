"""Leading singular triplets of a stack of matrices: which method when, and what certifies the result.

Tested in ``tests/spectral/singular_values/test_arnoldi.py``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gan_blocks._precision import to_float64
from gan_blocks.spectral.singular_values._lanczos import BlockLanczos, draw
from gan_blocks.spectral.singular_values._products import gram_matrix, skinny_product

__all__ = ["Settings", "Triplets", "leading_triplets", "subspace_size"]

# Sides up to which the eigendecomposition of the Gram matrix beats iteration with a start, and without one.
_DIRECT_WARM = 128
_DIRECT_COLD = 384
# The Gram matrix costs about as much as one step without it for so many rows, and never less than a few steps.
_ROWS_PER_STEP = 75
_FEWEST_STEPS = 5
# Vectors that a result hands to the next call, and random ones beside them for what has grown in between.
_HANDED_ON = 10
_RANDOM = 6
# Steps that show such growth, however good the start; who asks for two digits wants to be done sooner.
_STEPS_TO_SHOW = 3
_COARSE = 2e-3


@dataclass(frozen=True)
class Settings:
    """What the caller of top_singular_triplets asked for."""

    count: int
    tol: float
    max_matvecs: int
    generator: torch.Generator


class Triplets(NamedTuple):
    """Singular triplets with vectors as columns: left (batch, short, count), right (batch, long, count)."""

    left: Tensor
    values: Tensor
    right: Tensor
    bound: Tensor
    subspace: Tensor
    """Orthonormal left vectors beyond those of the triplets, which lie in their span: (batch, short, subspace_size)."""


class _LeftVectors(NamedTuple):
    """Leading left vectors: orthonormal columns, the wanted ones first."""

    basis: Tensor
    finished: bool = True
    """Whether max_matvecs was enough to settle those wanted."""
    half: Tensor | None = None
    """The transpose of A times those wanted, where the search has left that behind."""
    image: Tensor | None = None
    """A times that transpose times those wanted, as the search has left it behind."""


class _GramProduct:
    """The operator G = A Aᵀ, which keeps what the transpose made of each block."""

    def __init__(self, a: Tensor) -> None:
        self.halves: list[Tensor] = []
        self._a = a

    def __call__(self, vectors: Tensor) -> Tensor:
        half = skinny_product(self._a.mT, vectors)
        self.halves.append(half)
        return skinny_product(self._a, half)


def subspace_size(short: int, count: int) -> int:
    """Return how many vectors a result hands to the next call."""
    return min(short, max(_HANDED_ON, count + 1))


def leading_triplets(a: Tensor, guess: Tensor | None, settings: Settings) -> Triplets:
    """Find the leading triplets of matrices of moderate scale, in float64 what float32 cannot resolve.

    Args:
        a: The matrices, or transposed views, in float32 or float64.
        guess: Vectors near the left singular ones.
        settings: What is wanted.

    Returns:
        The triplets, in the dtype of ``a``.

    Shape:
        - a: ``(batch, short, long)`` with ``short <= long``
        - guess: ``(batch, short, any)``
    """
    left = _left_vectors(a, guess, settings)
    found = _rayleigh_ritz(a, left, settings)
    missed = _missed(found, settings)
    if a.dtype == torch.float64 or not left.finished or not missed.any():
        return found
    wide = to_float64(a[missed])
    near = to_float64(found.subspace[missed]) if a.shape[-2] > _DIRECT_COLD else None
    again = _rayleigh_ritz(wide, _left_vectors(wide, near, settings), settings)
    again = again._replace(bound=again.bound + torch.finfo(a.dtype).eps * again.values[:, :1])
    for whole, part in zip(found, again, strict=True):
        whole[missed] = part.to(whole)
    return found


def _missed(found: Triplets, settings: Settings) -> Tensor:
    # Not the opposite comparison: the bound of a zero matrix can be NaN.
    return ~(found.bound <= settings.tol * found.values[:, :1]).all(-1)


def _rayleigh_ritz(a: Tensor, left: _LeftVectors, settings: Settings) -> Triplets:
    """Decompose A on the span of the wanted vectors, with the products of the search if those are accurate enough."""
    wanted = left.basis[..., : settings.count]
    half = skinny_product(a.mT, wanted) if left.half is None else left.half
    if left.image is not None:
        found = _decompose(a, wanted, half, left.image)
        if not _missed(found, settings).any():
            return found._replace(subspace=left.basis)
        half = half if left.half is None else skinny_product(a.mT, wanted)
    return _decompose(a, wanted, half, None)._replace(subspace=left.basis)


def _decompose(a: Tensor, basis: Tensor, half: Tensor, image: Tensor | None) -> Triplets:
    r"""Turn an orthonormal basis U of left vectors into triplets: the decomposition of A on its span.

    From :math:`A^\top U = V S Y^\top` the new left vectors are U Y, for which :math:`A^\top u_i = s_i v_i`; so the
    residual of a triplet is only that of :math:`A v_i = s_i u_i`. If the ``image`` of ``half`` is given, A V is
    :math:`(A A^\top U) Y S^{-1}`, and what rounding did to the image is divided by the values, too.
    """
    orthonormal, factor = torch.linalg.qr(half)
    rotation, values, inverse = torch.linalg.svd(factor)
    left, right = basis @ inverse.mT, orthonormal @ rotation
    rounding = _product_rounding(a) * values[:, :1]
    if image is None:
        image = skinny_product(a, right)
    else:
        image = image @ inverse.mT / values[:, None]
        rounding = rounding * values[:, :1] / values
    residual = (image - left * values[:, None]).norm(dim=-2)
    return Triplets(left, values, right, residual + rounding + _gram_rounding(values), basis)


def _gram_rounding(values: Tensor) -> Tensor:
    """Return by how much rounding can have hidden a value larger than each.

    The eigenvalues of G are off by some eps * s_0², which for a value far below s_0 is much.
    """
    gram = 8 * torch.finfo(values.dtype).eps * values[:, :1].square()
    return torch.minimum(gram / values, gram.sqrt()).nan_to_num(nan=0.0)


def _product_rounding(a: Tensor) -> float:
    """Return the error of products with A relative to s_0: one and a half times the most that was measured.

    That was with equal entries, whose sums are all rounded to the same side.
    """
    return torch.finfo(a.dtype).eps * (64 + 2 * math.sqrt(a.shape[-1]))


def _left_vectors(a: Tensor, guess: Tensor | None, settings: Settings) -> _LeftVectors:
    """Find the leading left vectors, as many as are handed on."""
    short = a.shape[-2]
    size = subspace_size(short, settings.count)
    block = size + _RANDOM
    if short <= (_DIRECT_COLD if guess is None else _DIRECT_WARM) or 4 * block > short:
        return _LeftVectors(_leading_eigenvectors(gram_matrix(a), size))
    start = draw((a.shape[0], short, block), like=a, generator=settings.generator)
    if guess is not None:
        start[..., : min(size, guess.shape[-1])] = guess[..., :size]
    lanczos = BlockLanczos(start, settings.count, settings.generator)
    # What rounding takes of the tolerance is not left for the residuals.
    tol = max(settings.tol / 2, 0.9 * (settings.tol - _product_rounding(a)))
    patience = max(_FEWEST_STEPS, short / _ROWS_PER_STEP)
    product = _GramProduct(a)
    settled = _iterate(lanczos, product, settings, tol, patience)
    finished = bool(settled.all())
    if finished or lanczos.products >= settings.max_matvecs:
        return _LeftVectors(lanczos.vectors(size), finished, lanczos.combine(product.halves), lanczos.images())
    if short <= _DIRECT_COLD:
        left = lanczos.vectors(size)
        left[~settled] = _leading_eigenvectors(gram_matrix(a[~settled]), size)
        return _LeftVectors(left)
    gram = gram_matrix(a)
    finished = bool(_iterate(lanczos, partial(skinny_product, gram), settings, tol).all())
    if finished and not _none_missed(gram, lanczos, settings.tol):
        return _LeftVectors(_leading_eigenvectors(gram, size))
    return _LeftVectors(lanczos.vectors(size), finished)


def _iterate(
    lanczos: BlockLanczos,
    operator: Callable[[Tensor], Tensor],
    settings: Settings,
    tol: float,
    patience: float = math.inf,
) -> Tensor:
    """Take steps until all is settled, max_matvecs are used up or patience is exceeded; tell what is settled."""
    fewest = 2 if settings.tol > _COARSE else _STEPS_TO_SHOW
    while True:
        lanczos.step(operator)
        settled = lanczos.settled(tol)
        done = lanczos.steps >= fewest and bool(settled.all())
        if done or lanczos.products >= settings.max_matvecs or lanczos.steps_left(tol) > patience:
            return settled


def _leading_eigenvectors(gram: Tensor, count: int) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors.flip(-1)[..., :count]


def _none_missed(gram: Tensor, lanczos: BlockLanczos, tol: float) -> bool:
    r"""Tell whether no eigenvalue but those found exceeds the last of them by more than tol allows.

    True if :math:`\tau I - G + U \Theta U^\top` has a Cholesky factor, with
    :math:`\tau = (s_k + tol \cdot s_1)^2`.
    """
    vectors, values = lanczos.vectors(), lanczos.values
    limit = (values[:, -1:].sqrt() + tol * values[:, :1].sqrt()).square()
    rest = torch.baddbmm(gram, vectors * values[:, None], vectors.mT, beta=-1)
    rest.diagonal(dim1=-2, dim2=-1).add_(limit)
    return not torch.linalg.cholesky_ex(rest).info.any()
