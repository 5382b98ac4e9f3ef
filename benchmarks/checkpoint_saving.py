"""What saving a checkpoint costs, beside ``torch.save`` of the same tensors.

``python -m benchmarks.checkpoint_saving`` saves 1.2 GB of noise in 25 tensors both ways in turn and counts CPU time,
since a disk's mood hides the rest; torch's file is flushed to the disk as ours are. Ours have a hash of every file
beside them.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.results import Ratio, Table, render_table, table
from benchmarks.timing import machine, timed_in_turn
from gan_blocks.engine.runs.checkpoints import save_checkpoint

__all__ = ["SIZE", "saving_table"]

SIZE = 1_200_000_000
PARTS = ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d")


def tensors_of(size: int) -> dict[str, dict[str, Tensor]]:
    """As many bytes of noise in all, in tensors of a large network's sizes."""
    random = torch.Generator().manual_seed(0)
    each = min(1152 * 1152 * 9, size // 4 // len(PARTS))
    count = max(1, size // 4 // each // len(PARTS))
    return {
        part: {f"layer{number}.weight": torch.randn(each, generator=random) for number in range(count)}
        for part in PARTS
    }


def saving_table(size: int, *, rounds: int) -> Table:
    """CPU time of both in turn."""
    tensors = tensors_of(size)
    metadata = {"recipe": "biggan", "preset": "imagenet-128", "config": {}}
    with tempfile.TemporaryDirectory() as folder:

        def ours(number: int) -> None:
            save_checkpoint(Path(folder) / "checkpoints", number, tensors, metadata, keep_last=1)

        def torchs(_number: int) -> None:
            with (Path(folder) / "state.pt").open("wb") as file:
                torch.save(tensors, file)
                file.flush()
                os.fsync(file.fileno())

        measured = timed_in_turn({"ours": ours, "torch.save": torchs}, rounds, time.process_time)
    stored = sum(tensor.nbytes for part in tensors.values() for tensor in part.values())
    title = f"Saving a checkpoint of {stored / 1e9:.2g} GB, CPU time"
    return table(title, measured, [Ratio("ours", "torch.save")])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="CPU time of saving a checkpoint.")
    parser.add_argument("--bytes", type=int, default=SIZE, help="size of the checkpoint")
    parser.add_argument("--rounds", type=int, default=7, help="measurements, of which the median counts")
    options = parser.parse_args()
    print(machine())
    print(render_table(saving_table(options.bytes, rounds=options.rounds)))


if __name__ == "__main__":
    main()
