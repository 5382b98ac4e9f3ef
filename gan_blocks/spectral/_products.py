"""Products of a large matrix with few vectors, and with itself, as fast as the CPU's memory allows.

Tested in ``tests/spectral/test_products.py``.
"""

from torch import Tensor

__all__ = ["gram_matrix", "skinny_product"]

# Measured on 2 AVX-512 cores: MKL multiplies a row-major matrix with a block of 3 to 32 vectors at the speed of memory,
# but its transpose three times slower, unless the sum is split into terms of low rank. Below a million entries or so,
# and for short rows, the calls for the terms cost more than that saves; then the order of the factors still counts.
_RANK = 32
_LARGE = 2**20
_LONG_ROW = 512
_PANELS = 8


def skinny_product(matrix: Tensor, vectors: Tensor) -> Tensor:
    r"""Multiply matrices with a few vectors each, in whichever order the memory of the matrices is fastest.

    A large column-major M on the CPU takes :math:`(M X)^\top = \sum_J X_J^\top M_J^\top` over panels of 32 columns.

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
    column_major = matrix.stride(-1) != 1 and matrix.stride(-2) == 1
    if not column_major or matrix.device.type != "cpu":
        return matrix @ vectors
    if matrix.shape[0] > 1 or matrix.numel() < _LARGE or matrix.shape[-2] < _LONG_ROW:
        return (vectors.mT @ matrix.mT).mT
    rows, columns = matrix[0].mT, vectors[0].mT.contiguous()
    total = vectors.new_zeros(vectors.shape[-1], matrix.shape[-2])
    for first in range(0, len(rows), _RANK):
        panel = slice(first, first + _RANK)
        total.addmm_(columns[:, panel], rows[panel])
    return total.mT[None]


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
    rows = matrix.shape[-2]
    if rows < 16 * _PANELS:
        return _symmetric(matrix @ matrix.mT)
    gram = matrix.new_empty(*matrix.shape[:-1], rows)
    width = -(-rows // _PANELS)
    for first in range(0, rows, width):
        panel = matrix[..., first:, :] @ matrix[..., first : first + width, :].mT
        panel[..., :width, :] = _symmetric(panel[..., :width, :])
        gram[..., first:, first : first + width] = panel
        gram[..., first : first + width, first:] = panel.mT
    return gram


def _symmetric(gram: Tensor) -> Tensor:
    """Mirror the lower half: on some CPUs the two halves of A Aᵀ differ in their last bits."""
    return gram.tril() + gram.tril(-1).mT
