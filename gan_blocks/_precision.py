"""Arithmetic on weights in float32 or wider, whatever their dtype and whatever autocast says.

Tested in ``tests/test_precision.py``.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

__all__ = ["exact_products", "full_precision", "wide_dtype"]


def wide_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype to compute in: that of the weight, or float32 when it is narrower."""
    return torch.promote_types(weight.dtype, torch.float32)


def full_precision(weight: Tensor) -> AbstractContextManager[None]:
    """Return a context without autocast, which would turn products of matrices into bfloat16 ones."""
    kind = weight.device.type
    # The meta device knows no autocast, and to ask it is an error.
    active = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()


@contextmanager
def exact_products() -> Iterator[None]:
    """Open a context whose float32 products round to float32, whatever ``torch.set_float32_matmul_precision`` says."""
    asked = torch.get_float32_matmul_precision()
    if asked == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(asked)
