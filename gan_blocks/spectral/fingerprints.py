"""Telling by its content whether a weight is still the one that its singular vectors belong to.

Counting writes is not enough: optimizers that write through ``.data``, and sharded ones, leave torch's counter alone,
and a wrapper that broadcasts equal values moves it. So the product of the weight with a fixed vector is kept.

Tested in ``tests/spectral/test_fingerprints.py``.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn

from gan_blocks.spectral.power_iteration import in_torch_order, matrix_axes, to_memory_order

__all__ = ["agrees", "can_branch", "fingerprint", "in_narrower_dtype", "reference_of"]

# How far rounding may take an entry, in units of the machine epsilon times the norm of its row. Measured in float32 by
# MKL, oneDNN and compiled code, on average: 0.5 for rows of 64, 2 for 864, 6 for 13,824.
_ROUNDING = 64
_LARGEST_KEPT = 2**16  # columns


def fingerprint(matrices: Tensor, weight: Tensor, dim: int) -> Tensor:
    r"""Multiply a weight, or each in a stack of one shape and memory format, with one fixed vector.

    .. math:: f_i = \sum_j W_{ij} \cos j

    Every column counts, and they do not count alike: the rows of a standardized weight sum to zero whatever happens
    to it. The columns are those in torch's order, so that f is the same in every memory format, up to rounding.

    Args:
        matrices: The weights as matrices, columns in the order of memory.
        weight: One of the weights, for its shape and memory format.
        dim: The dimension of ``weight`` that is "out".

    Returns:
        f of each.

    Shape:
        - matrices: ``(..., out, rest)``
        - returns: ``(..., out)``
    """
    kept = can_branch(matrices) and matrices.shape[-1] <= _LARGEST_KEPT
    columns = (_kept_columns if kept else _columns)(matrices.shape[-1], matrices.dtype, matrices.device)
    axes = matrix_axes(weight, dim)
    if not in_torch_order(axes):
        columns = to_memory_order(columns[None], weight, axes)[0]
    return matrices @ columns


def reference_of(matrices: Tensor, fingerprints: Tensor) -> Tensor:
    """Return what later fingerprints are compared with: f, and how far rounding alone may take each of its entries.

    That is -1 in a row that is not finite, so that it differs from all others. A reference of NaN stands for an unknown
    weight.

    Shape:
        - matrices: ``(..., out, rest)``
        - fingerprints: ``(..., out)``
        - returns: ``(..., 2, out)``
    """
    rounding = _ROUNDING * torch.finfo(matrices.dtype).eps * torch.linalg.vector_norm(matrices, dim=-1)
    return torch.stack([fingerprints, rounding.nan_to_num(nan=-1.0, posinf=-1.0)], dim=-2)


def agrees(fingerprint: Tensor, reference: Tensor) -> Tensor:
    """Whether a fingerprint is that of a reference but for rounding, or the reference is unknown."""
    expected, rounding = reference.unbind()
    # An update may touch only a few rows of a large table.
    return ((fingerprint - expected).abs() <= rounding).all() | rounding[0].isnan()


def in_narrower_dtype(reference: Tensor, dtype: torch.dtype) -> Tensor:
    """A reference whose weight is rounded to a narrower dtype now."""
    fingerprint, rounding = reference.unbind(-2)
    wider = torch.finfo(dtype).eps / (_ROUNDING * torch.finfo(reference.dtype).eps)
    return torch.stack([fingerprint, rounding * max(wider, 1.0)], dim=-2)


def can_branch(tensor: Tensor) -> bool:
    """Whether a look at the values costs nothing: not a wait for a device, nor the break of a compiled graph."""
    # A tensor of another class may have no values, as in torch's FakeTensorMode.
    return tensor.device.type == "cpu" and type(tensor) in _WITH_VALUES and not torch.compiler.is_compiling()


def _columns(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(count, device=device, dtype=dtype).cos()


_kept_columns = lru_cache(maxsize=256)(_columns)
_WITH_VALUES = (Tensor, nn.Parameter)
