"""Products of a large matrix with few vectors, and with itself, as fast as the CPU's memory allows.

Tested in ``tests/spectral/singular_values/test_products.py``.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

__all__ = ["gram_matrix", "skinny_product"]

# Float32 on the CPU goes through oneDNN instead of torch's usual MKL. Measured on two AMD cores with AVX-512, where MKL
# uses half of a core's width: 2.2 times as fast for large matrices; for a few vectors, where MKL's speed depends on the
# order of the factors, 2 to 10 times; with AVX2, about as fast. Calls for small matrices cost more than that saves.
_LARGE = 2**14
_PANELS = 8


def skinny_product(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Multiply matrices with a few vectors each.

    Args:
        matrix: The matrices, or transposed views of them.
        vectors: The vectors, as columns.

    Returns:
        ``matrix @ vectors``.

    Shape:
        - matrix: ``(batch, rows, columns)``
        - vectors: ``(batch, columns, count)``
        - returns: ``(batch, rows, count)``

    Example:
        >>> skinny_product(torch.eye(2)[None], torch.tensor([[[3.0], [4.0]]])).flatten().tolist()
        [3.0, 4.0]
    """
    rows = vectors.mT.contiguous()
    return _times_transposed(matrix, rows) if matrix.is_contiguous() else _times_transposed(rows, matrix).mT


def gram_matrix(matrix: Tensor) -> Tensor:
    """Multiply matrices with their own transposes, computing each pair of rows once.

    Args:
        matrix: The matrices A.

    Returns:
        The symmetric matrices A Aᵀ.

    Shape:
        - matrix: ``(batch, rows, columns)``
        - returns: ``(batch, rows, rows)``

    Example:
        >>> gram_matrix(torch.tensor([[[1.0, 2.0]]])).tolist()
        [[[5.0]]]
    """
    matrix = matrix.contiguous()
    rows = matrix.shape[-2]
    if rows < 16 * _PANELS:
        return _symmetric(_times_transposed(matrix, matrix))
    gram = matrix.new_empty(*matrix.shape[:-1], rows)
    width = -(-rows // _PANELS)
    for first in range(0, rows, width):
        panel = _times_transposed(matrix[..., first:, :], matrix[..., first : first + width, :])
        panel[..., :width, :] = _symmetric(panel[..., :width, :])
        gram[..., first:, first : first + width] = panel
        gram[..., first : first + width, first:] = panel.mT
    return gram


def _times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """Compute ``a @ b.mT``."""
    large = max(a[0].numel(), b[0].numel()) >= _LARGE
    product = _onednn_product() if large and a.device.type == "cpu" and a.dtype == torch.float32 else None
    if product is None or not torch.backends.mkldnn.enabled:
        return a @ b.mT
    # Of other memory layouts than these oneDNN makes very slow work.
    a, b = a.contiguous(), b if b.mT.is_contiguous() else b.contiguous()
    return torch.stack([product(x, y) for x, y in zip(a, b, strict=True)])


@cache
def _onednn_product() -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return oneDNN's ``a @ b.mT``, which torch keeps for compiled models; None where it is missing or coarse."""

    def product(a: Tensor, b: Tensor) -> Tensor:
        c: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return c

    digits = torch.full((64, 64), 1 + 2**-12, device="cpu", dtype=torch.float32)  # more than bfloat16 and TF32 have
    try:
        exact = torch.allclose(product(digits, digits).double(), digits.double() @ digits.double(), rtol=1e-5, atol=0)
        return product if exact else None
    except (AttributeError, RuntimeError, TypeError):
        return None


def _symmetric(gram: Tensor) -> Tensor:
    """Mirror the lower half: on some CPUs the two halves of A Aᵀ differ in their last bits."""
    return gram.tril() + gram.tril(-1).mT
