"""A network with normalized weights of many kinds, to be read inside ``cached_spectral_norm`` and without."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from gan_blocks import spectral_norm
from tests.drawn import draw

__all__ = ["Context", "Double", "batches", "critic", "plain"]

Context = Callable[[nn.Module], AbstractContextManager[None]]


def plain(_model: nn.Module) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


class Double(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def critic(
    *, channels: int = 4, channels_last: bool = False, count: int = 1, eps: float = 1e-4, doubled: bool = True
) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(2, channels, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 1),
        nn.ConvTranspose2d(channels, 3, 2),
        nn.Flatten(),
        nn.Linear(3 * 25, 5),
        nn.Linear(5, 5),
        nn.Linear(5, 5),
        nn.Linear(5, 1),
    ]
    model = nn.Sequential(*layers).double()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    for layer in layers:
        if hasattr(layer, "weight"):
            spectral_norm(layer, num_singular_values=min(count, layer.weight.shape[0]), eps=eps)
    if doubled:  # which is read as always
        register_parametrization(model[4], "weight", Double())
    return model


def batches() -> Iterator[Tensor]:
    for number in range(3):
        yield draw(2, 2, 4, 4, seed=number).requires_grad_()
