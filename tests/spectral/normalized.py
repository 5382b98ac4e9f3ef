"""What a layer with a normalized weight holds: its tracker, its own weight, its singular vectors."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_blocks import clamp_sigma, spectral_norm

__all__ = ["assert_same", "largest", "new_weight", "original_of", "registered", "tracker_of", "vectors_of"]

REGISTER = {"spectral_norm": spectral_norm, "clamp_sigma": lambda layer: clamp_sigma(layer, maximum=1.0)}
registered = pytest.mark.parametrize("register", REGISTER.values(), ids=REGISTER)


def tracker_of(layer: nn.Module) -> Any:
    return layer.parametrizations.weight[-1]


def original_of(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


def vectors_of(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return tracker_of(layer).u.clone(), tracker_of(layer).v.clone()


def largest(layer: nn.Module) -> float:
    return torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item()


def new_weight(layer: nn.Module, seed: int = 1) -> Tensor:
    return torch.randn(original_of(layer).shape, generator=torch.Generator().manual_seed(seed))


def assert_same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
