"""Layers of a factory on the device and in the dtype that their owner was given.

Tested through ``tests/test_meta_device.py``.
"""

from typing import TypeVar

import torch
from torch import nn

__all__ = ["placed"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def placed(layer: ModuleT, device: torch.device | str | None, dtype: torch.dtype | None) -> ModuleT:
    """Move a new layer if a device or a dtype is given: fake tensors cannot be moved, not even to where they are."""
    return layer if device is None and dtype is None else layer.to(device, dtype)
