"""The elementary random numbers that priors are made of."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """Independent numbers of elementary distributions, one row a sample, each call from where the last one ended.

    Normal numbers and integers have the dtype asked for. Uniform ones have at least float32: bfloat16 has 256 of them,
    and their mean is visibly below 1/2.
    """

    batch_size: int
    generator: torch.Generator | None
    device: torch.device | str | None
    dtype: torch.dtype

    @property
    def wide_dtype(self) -> torch.dtype:
        """The dtype, or float32 where that is wider: to compute in."""
        return torch.promote_types(self.dtype, torch.float32)

    def normal(self, columns: int) -> Tensor:
        """Standard normal numbers, ``(batch_size, columns)``."""
        return torch.randn(self.batch_size, columns, generator=self.generator, device=self.device, dtype=self.dtype)

    def uniform(self, columns: int) -> Tensor:
        """Numbers uniform in [0, 1), ``(batch_size, columns)``."""
        return torch.rand(self.batch_size, columns, generator=self.generator, device=self.device, dtype=self.wide_dtype)

    def integers(self, columns: int, low: int, high: int) -> Tensor:
        """Integers from ``low`` to ``high``, both included and all equally likely, ``(batch_size, columns)``."""
        return torch.randint(
            low, high + 1, (self.batch_size, columns), generator=self.generator, device=self.device, dtype=self.dtype
        )
