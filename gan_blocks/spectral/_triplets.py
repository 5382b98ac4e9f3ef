"""Leading singular triplets of a stack of matrices: which method when, and what certifies the result.

Tested in ``tests/spectral/test_arnoldi.py``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gan_blocks.spectral._lanczos import BlockLanczos, draw
from gan_blocks.spectral._products import gram_matrix, skinny_product

__all__ = ["Settings", "Triplets", "leading_triplets"]

# Sides up to which the eigendecomposition of the Gram matrix beats iteration with a start, and without one.
_DIRECT_WARM = 64
_DIRECT_COLD = 384
# The Gram matrix costs about as much as one step without it for so many rows, and never less than a few steps.
_ROWS_PER_STEP = 150
_FEWEST_STEPS = 5


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
    left, finished = _left_vectors(a, guess, settings)
    found = _rayleigh_ritz(a, left)
    missed = (found.bound > settings.tol * found.values[:, :1]).any(-1)
    if a.dtype == torch.float64 or not finished or not missed.any():
        return found
    wide = a[missed].double()
    near = found.left[missed].double() if a.shape[-2] > _DIRECT_COLD else None
    again = _rayleigh_ritz(wide, _left_vectors(wide, near, settings)[0])
    again = again._replace(bound=again.bound + torch.finfo(a.dtype).eps * again.values[:, :1])
    for whole, part in zip(found, again, strict=True):
        whole[missed] = part.to(whole.dtype)
    return found


def _rayleigh_ritz(a: Tensor, left: Tensor) -> Triplets:
    r"""Turn an orthonormal basis U of left vectors into triplets: the decomposition of A on its span.

    From :math:`A^\top U = V S Y^\top` the new left vectors are U Y, for which :math:`A^\top u_i = s_i v_i`; so the
    residual of a triplet is that of :math:`A v_i = s_i u_i` alone.
    """
    basis, factor = torch.linalg.qr(skinny_product(a.mT, left))
    rotation, values, inverse = torch.linalg.svd(factor)
    left, right = left @ inverse.mT, basis @ rotation
    residual = (skinny_product(a, right) - left * values[:, None]).norm(dim=-2)
    return Triplets(left, values, right, residual + _rounding(values, _product_rounding(a)))


def _rounding(values: Tensor, products: float) -> Tensor:
    """Return by how much rounding can falsify each value, or hide one that is larger than it."""
    largest = values[:, :1]
    # The eigenvalues of G are off by some eps * s_0², which for a value far below s_0 is much.
    gram = 8 * torch.finfo(values.dtype).eps * largest.square()
    return products * largest + torch.minimum(gram / values, gram.sqrt()).nan_to_num(nan=0.0)


def _product_rounding(a: Tensor) -> float:
    """Return the error of products with A relative to s_0: twice the most that was measured.

    That was with equal entries, whose sums are all rounded to the same side.
    """
    return torch.finfo(a.dtype).eps * (32 + 2 * math.sqrt(a.shape[-1]))


def _left_vectors(a: Tensor, guess: Tensor | None, settings: Settings) -> tuple[Tensor, bool]:
    """Return an orthonormal basis of the leading left vectors, and whether max_matvecs was enough to settle it."""
    short = a.shape[-2]
    # Small matrices take time for each vector, large ones only for each pass over them.
    block = max(16 if guess is None or short > _DIRECT_COLD else 0, settings.count + 5)
    if short <= (_DIRECT_COLD if guess is None else _DIRECT_WARM) or 4 * block > short:
        return _leading_eigenvectors(gram_matrix(a), settings.count), True
    start = draw((a.shape[0], short, block), like=a, generator=settings.generator)
    if guess is not None:
        start[..., : guess.shape[-1]] = guess[..., :block]
    lanczos = BlockLanczos(start, settings.count, settings.generator)
    # What rounding takes of the tolerance is not left for the residuals.
    tol = max(settings.tol / 2, 0.9 * (settings.tol - _product_rounding(a)))
    patience = max(_FEWEST_STEPS, short / _ROWS_PER_STEP)
    if _iterate(lanczos, partial(_gram_product, a), tol, settings.max_matvecs, patience):
        return lanczos.vectors(), bool(lanczos.settled(tol).all())
    if short <= _DIRECT_COLD:
        left, slow = lanczos.vectors(), ~lanczos.settled(tol)
        left[slow] = _leading_eigenvectors(gram_matrix(a[slow]), settings.count)
        return left, True
    gram = gram_matrix(a)
    _iterate(lanczos, partial(torch.matmul, gram), tol, settings.max_matvecs)
    finished = bool(lanczos.settled(tol).all())
    if finished and not _none_missed(gram, lanczos, settings.tol):
        return _leading_eigenvectors(gram, settings.count), True
    return lanczos.vectors(), finished


def _iterate(
    lanczos: BlockLanczos,
    operator: Callable[[Tensor], Tensor],
    tol: float,
    max_products: int,
    patience: float = math.inf,
) -> bool:
    """Take steps until all is settled or max_products are used up: True, or until patience is exceeded: False."""
    while True:
        lanczos.step(operator)
        if lanczos.settled(tol).all() or lanczos.products >= max_products:
            return True
        if lanczos.steps_left(tol) > patience:
            return False


def _gram_product(a: Tensor, vectors: Tensor) -> Tensor:
    return skinny_product(a, skinny_product(a.mT, vectors))


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
    rest = (vectors * values[:, None]) @ vectors.mT - gram
    rest.diagonal(dim1=-2, dim2=-1).add_(limit)
    return not torch.linalg.cholesky_ex(rest).info.any()
