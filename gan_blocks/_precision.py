"""Arithmetic on weights in float32 or wider, whatever their dtype and whatever lower precision was asked for.

Tested in ``tests/test_precision.py``.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["exact_products", "full_precision", "has_float64", "to_float64", "wide_dtype"]

_WIDE = (torch.float32, torch.float64)
_WITHOUT_FLOAT64 = {"mps"}  # kinds of devices


def wide_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype to compute in: that of the weight, or float32 when it is narrower."""
    dtype = weight.dtype
    # Asked at every read of every weight: what need not be promoted is known without a call of torch.
    return dtype if dtype in _WIDE else torch.promote_types(dtype, torch.float32)


def to_float64(values: Tensor) -> Tensor:
    """Convert to float64, on the CPU where the device has none."""
    return (values if has_float64(values.device) else values.cpu()).double()


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64."""
    return device.type not in _WITHOUT_FLOAT64


def full_precision(weight: Tensor) -> AbstractContextManager[None]:
    """Return a context without autocast, which would turn products of matrices into bfloat16 ones."""
    kind = weight.device.type
    # The meta device knows no autocast, and to ask it is an error.
    active = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()


@contextmanager
def exact_products() -> Iterator[None]:
    """Open a context whose float32 products round to float32, whatever lower precision was asked for.

    That is a setting of the process: of several threads, one that leaves the context ends it for the others.
    """
    backends: list[Any] = [getattr(getattr(torch.backends, name), "matmul", None) for name in ("cuda", "mkldnn")]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # torch before 2.9
        asked = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(asked)
        return
    # Backends that are exact are left alone: to set one cuts it off from the settings that it follows.
    coarse = [(backend, backend.fp32_precision) for backend in backends if backend.fp32_precision in ("tf32", "bf16")]
    for backend, _ in coarse:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, asked in coarse:
            backend.fp32_precision = asked
