"""The device that ``--device`` names, and the threads of ``--threads``.

Tested in ``tests/engine/training/test_loop.py``.
"""

import os

import torch

from gan_blocks.engine.base.errors import UserError

__all__ = ["cpu_has_bf16", "notes_on_precision", "torch_device", "use_threads"]


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


def cpu_has_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16; without them it takes many times as long as in float32."""
    supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(supported) and torch.backends.cpu.get_cpu_capability() != "AVX2"


def notes_on_precision(precision: str, device: torch.device) -> tuple[str, ...]:
    """A line for the user if ``--precision`` makes this device slow."""
    if precision != "bf16" or device.type != "cpu" or cpu_has_bf16():
        return ()
    return ("--precision bf16 is many times slower than fp32 here: this CPU has no instructions for bfloat16.",)


def use_threads(threads: int | None) -> tuple[str, ...]:
    """Let torch work with as many CPU threads as ``--threads`` says; None leaves the number to torch.

    Returns:
        A line for the user if they are more than the cores that this process may use.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads is None or threads <= cores:
        return ()
    return (f"--threads {threads} is more than there are cores ({cores}), which makes everything many times slower.",)
