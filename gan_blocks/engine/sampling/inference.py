"""A generator that is only sampled from: in the precision that was asked for, and as fast as it can be.

Tested in ``tests/engine/sampling/test_inference.py``.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from gan_blocks import fold_generator_blocks

__all__ = ["SamplingPrecision", "for_inference", "in_precision"]

SamplingPrecision = Literal["fp32", "bf16"]


class _InBfloat16(nn.Module):
    """A generator under bf16 autocast, as training with ``--precision bf16`` runs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, classes: Tensor) -> Tensor:
        with torch.autocast(z.device.type, dtype=torch.bfloat16):
            images: Tensor = self.model(z, classes)
        return images


def in_precision(model: nn.Module, precision: SamplingPrecision) -> nn.Module:
    """The model itself, or one that runs it under autocast."""
    return _InBfloat16(model) if precision == "bf16" else model


def for_inference(model: nn.Module, precision: SamplingPrecision = "fp32") -> nn.Module:
    """A generator in evaluation mode, its blocks folded; in bf16 its weights are rounded once, not in every call.

    Args:
        model: The generator with its final weights and statistics; it is changed.
        precision: What to compute in.
    """
    fold_generator_blocks(model)
    if precision == "bf16":
        for module in model.modules():
            if type(module) in (nn.Conv2d, nn.Linear):  # what autocast rounds before it is used
                module.to(torch.bfloat16)
    return in_precision(model, precision)
