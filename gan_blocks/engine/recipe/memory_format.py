"""Networks whose maps lie as NHWC in memory, which is faster.

Tested in ``tests/engine/recipe/test_build.py``.
"""

from typing import TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn

__all__ = ["to_channels_last"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def to_channels_last(network: ModuleT) -> ModuleT:
    """Keep the convolutions' weights as NHWC, which makes them give NHWC whatever they are given."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 1:
            module.register_forward_pre_hook(_as_channels_last)
    return network


def _as_channels_last(_convolution: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Give a map of one channel the strides of NHWC: its memory is that of both formats, and torch takes it for NCHW.

    D's first and largest blocks would work on NCHW maps otherwise; see ``tests/engine/recipe/test_build.py``.
    """
    return (rearrange(inputs[0], "batch 1 height width -> batch height width 1").permute(0, 3, 1, 2),)
