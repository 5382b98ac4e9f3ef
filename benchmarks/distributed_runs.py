"""Whether torchrun's processes train as one.

    python -m benchmarks.distributed_runs [--steps N]

A small BigGAN-deep on real digits in float64, a batch of 12, by 1, 2, 3 and 4 processes: the largest difference of any
tensor of the last checkpoint from that of one process.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import machine
from gan_blocks.engine.runs.checkpoints import load_latest_checkpoint

__all__ = ["free_port", "torchrun"]

NETWORK = [
    *("--channels", "8", "--generator-widths", "4", "2", "2", "1", "--discriminator-widths", "1", "2", "4", "4"),
    *("--latent-dim", "16", "--embedding-dim", "16", "--batch-size", "12", "--standing-batches", "2"),
    *("--precision", "fp64", "--threads", "1", "--sample-every", "0", "--compare-every", "5"),
]


def main() -> None:
    """Train by each number of processes, and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        compare_splits(Path(folder), args.steps)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def torchrun(folder: Path, processes: int, steps: int, *more: str) -> list[str]:
    """The command that trains in this folder."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *more]
    run = ["--run-dir", str(folder), "--steps", str(steps), "--checkpoint-every", "4"]
    return [*launcher, "--standalone", "-m", "recipes.biggan_deep", *NETWORK, *run]


def compare_splits(folder: Path, steps: int) -> None:
    """Print the largest differences of 2, 3 and 4 processes from one.

    A bias in front of BatchNorm has no gradient but what rounding leaves of zero. Adam divides that by its epsilon of
    1e-8 and makes steps of it, which BatchNorm's means follow and nothing else sees: these are shown apart.
    """
    checkpoints = {}
    for processes in (1, 2, 3, 4):
        run = folder / f"split_{processes}"
        subprocess.run(torchrun(run, processes, steps), check=True, stderr=subprocess.DEVNULL)
        checkpoints[processes] = load_latest_checkpoint(run / "checkpoints").tensors
    idle = {name for name in checkpoints[1]["generator"] if ".conv" in name and name.endswith(".bias")}
    print(f"largest differences from one process after {steps} steps in float64, {len(idle)} idle biases apart:")
    for processes in (2, 3, 4):
        largest = {"idle biases and running means": 0.0, "all other tensors": 0.0}
        for part, tensors in checkpoints[1].items():
            for name, tensor in tensors.items():
                kind = list(largest)[name not in idle and not name.endswith("running_mean")]
                difference = (tensor - checkpoints[processes][part][name]).abs().max().item() if tensor.numel() else 0
                largest[kind] = max(largest[kind], difference)
        pairs = zip(losses(folder / "split_1"), losses(folder / f"split_{processes}"), strict=True)
        of_losses = max(abs(one - other) for one, other in pairs)
        shown = ", ".join(f"{kind} {value:.1e}" for kind, value in {**largest, "losses": of_losses}.items())
        print(f"  {processes} processes: {shown}", flush=True)


def losses(run: Path) -> list[float]:
    """All losses in the log."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [value for line in lines for name, value in line.items() if name.startswith("loss_")]


if __name__ == "__main__":
    main()
