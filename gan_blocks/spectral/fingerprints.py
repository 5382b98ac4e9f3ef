"""Telling by its content whether a weight is still the one that its singular vectors belong to.

Counting writes is not enough: optimizers that write through ``.data``, and sharded ones, leave torch's counter alone,
and a wrapper that broadcasts equal values moves it. So the product of the weight with a fixed vector is kept.

Tested in ``tests/spectral/test_fingerprints.py``.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn

from gan_blocks.spectral.power_iteration import in_torch_order, matrix_axes, to_memory_order

__all__ = ["can_branch", "distance", "fingerprint", "reference_of"]

# How far rounding may take a fingerprint, in units of the machine epsilon times the norm of the weight. Measured in
# float32 by MKL, oneDNN and compiled code: 0.5 for 64 columns, 2 for 864, 6 for 13,824.
_ROUNDING = 32


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
    plain = can_branch(matrices)
    columns = (_kept_columns if plain else _columns)(matrices.shape[-1], matrices.dtype, matrices.device)
    axes = matrix_axes(weight, dim)
    if not in_torch_order(axes):
        columns = to_memory_order(columns[None], weight, axes)[0]
    return matrices @ columns


def reference_of(matrices: Tensor, fingerprints: Tensor) -> Tensor:
    """Return what later fingerprints are compared with: f, followed by how far rounding alone may take another.

    Of a weight that is not finite that is -1, which it differs from. A reference of NaN stands for an unknown weight.

    Shape:
        - matrices: ``(..., out, rest)``
        - fingerprints: ``(..., out)``
        - returns: ``(..., out + 1)``
    """
    norms = torch.linalg.vector_norm(matrices, dim=(-2, -1)).unsqueeze(-1)
    rounding = _ROUNDING * torch.finfo(matrices.dtype).eps * norms
    return torch.cat([fingerprints, rounding.nan_to_num(nan=-1.0, posinf=-1.0)], dim=-1)


def distance(fingerprint: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far a fingerprint is from a reference, and how far it may be if the weight is the same."""
    return torch.dist(fingerprint, reference[:-1]), reference[-1]


def can_branch(tensor: Tensor) -> bool:
    """Whether a look at the values costs nothing: not a wait for a device, nor the break of a compiled graph."""
    # A tensor of another class may have no values, as in torch's FakeTensorMode.
    return tensor.device.type == "cpu" and type(tensor) in _WITH_VALUES and not torch.compiler.is_compiling()


def _columns(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(count, device=device, dtype=dtype).cos()


_kept_columns = lru_cache(maxsize=256)(_columns)
_WITH_VALUES = (Tensor, nn.Parameter)
