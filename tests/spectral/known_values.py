"""Layers whose weights have known singular values."""

import torch
from torch import Tensor, nn

from gan_blocks import SigmaClamp

__all__ = ["SIGMAS", "give_singular_values", "original_of", "plain_linear", "tracker_of"]

SIGMAS = [3.0, 2.0, 1.2, 0.5]


def give_singular_values(layer: nn.Module, sigmas: list[float], rng: torch.Generator, dim: int = 0) -> None:
    moved = layer.weight.detach().movedim(dim, 0)
    u, _, vt = torch.linalg.svd(torch.randn(moved.flatten(1).shape, dtype=moved.dtype, generator=rng), False)
    matrix = u @ torch.diag(torch.tensor(sigmas, dtype=moved.dtype)) @ vt
    with torch.no_grad():
        layer.weight.copy_(matrix.reshape(moved.shape).movedim(0, dim))


def plain_linear(rng: torch.Generator, sigmas: list[float] = SIGMAS) -> nn.Linear:
    layer = nn.Linear(5, 4).double()
    give_singular_values(layer, sigmas, rng)
    return layer


def tracker_of(layer: nn.Module) -> SigmaClamp:
    return layer.parametrizations.weight[-1]


def original_of(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original
