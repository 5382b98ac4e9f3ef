"""Rounding that keeps a distribution within its support."""

import torch

__all__ = ["largest_within"]


def largest_within(bound: float, dtype: torch.dtype) -> float:
    """Round a bound toward 0 to a number of ``dtype``, so that rounding a draw to it cannot pass the bound."""
    rounded = torch.tensor(bound, dtype=dtype, device="cpu")
    if rounded.item() > bound:
        rounded = torch.nextafter(rounded, torch.zeros_like(rounded))
    return rounded.item()
