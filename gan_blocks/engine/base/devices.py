"""The device that ``--device`` names.

Tested in ``tests/engine/training/test_command.py``.
"""

import torch

from gan_blocks.engine.base.errors import UserError

__all__ = ["torch_device"]


def torch_device(name: str) -> torch.device:
    """The device of a ``--device`` option; ``auto`` is a GPU when there is one.

    Raises:
        UserError: If the name is not a device, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, but got {name}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name} is not there: torch sees {torch.cuda.device_count()} GPUs.")
    return device
