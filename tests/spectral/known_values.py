"""Layers whose weights have known singular values."""

import torch
from torch import nn

__all__ = ["SIGMAS", "give_singular_values", "plain_linear"]

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
