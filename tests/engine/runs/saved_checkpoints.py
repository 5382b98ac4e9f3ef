"""A small checkpoint to save, and what is in a folder of them."""

from pathlib import Path

import torch
from torch import Tensor

from gan_blocks.engine.runs.checkpoints import save_checkpoint

METADATA = {"recipe": "recipes.biggan:RECIPE", "preset": "small", "config": {"widths": [4, 2], "a": 1, "b": 2}}
FILES = ("ema.safetensors", "optimizer_g.safetensors", "state.json", "MANIFEST.json")


def example_tensors(value: float) -> dict[str, dict[str, Tensor]]:
    value = float(value)  # an int would make integer tensors
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    return {
        "ema": {"conv.weight": images.to(memory_format=torch.channels_last), "gamma": torch.tensor(value)},
        "optimizer_g": {"gamma.step": torch.tensor(value), "gamma.exp_avg": torch.full((33,), value)},
    }


def save(folder: Path, step: int, value: float, keep_last: int = 1) -> None:
    save_checkpoint(folder, step, example_tensors(value), METADATA, keep_last=keep_last)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
