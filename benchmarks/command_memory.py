"""The most memory that sampling and evaluating take, however many images there are.

``python -m benchmarks.command_memory`` trains the smallest networks for a step on noise, at 64 x 64 and 128 x 128 in
color, then draws many samples in each form that ``sample`` writes, and evaluates a run on many real images. It prints
the peak of the resident memory of each command.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.timing import machine

NETWORK = ["--channels", "8", "--image-channels", "3", "--batch-size", "8", "--standing-batches", "2", "--threads", "1"]


def trained(folder: Path, side: int, images: int, classes: int) -> Path:
    """A run of one step on noise, of which each class has a brightness of its own."""
    labels = np.arange(images) % classes
    pixels = np.random.default_rng(0).integers(0, 80, (images, side, side, 3), dtype=np.uint8)
    pixels += (labels * (175 // classes)).astype(np.uint8)[:, None, None, None]
    np.savez(folder / "images.npz", images=pixels, labels=labels)
    levels = ["1"] * (side // 4).bit_length()  # at 4x4, 8x8, ... side x side
    words = ["--data", f"npz:{folder / 'images.npz'}", "--resolution", str(side), "--num-classes", str(classes)]
    words += ["--generator-widths", *levels, "--discriminator-widths", *levels[1:]]
    words += ["--steps", "1", "--sample-every", "0"]
    command = [sys.executable, "-m", "recipes.sngan", *NETWORK, *words, "--run-dir", str(folder / "run")]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return folder / "run"


def peak(*words: str) -> tuple[float, float]:
    """Peak in GiB and seconds of a command of ``gan-blocks``, whose progress is shown."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "gan_blocks.engine.commands", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # or it would be waited for again
    if process.returncode:
        raise SystemExit(f"gan-blocks {' '.join(words)} has failed")
    unit = 1 if sys.platform == "darwin" else 2**10
    return used.ru_maxrss * unit / 2**30, time.perf_counter() - began


def main() -> None:
    """Measure each command and print its peak."""
    parser = argparse.ArgumentParser(description="Peak memory of sample and evaluate.")
    parser.add_argument("--num", type=int, default=20_000, help="samples of 64x64 to draw in each form")
    parser.add_argument("--images", type=int, default=10_000, help="real images of 128x128 to evaluate against")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "64", Path(folder) / "128"
        for path in (small, large):
            path.mkdir()
        run = str(trained(small, 64, 200, 4))
        words = ["sample", "--run", run, "--num", str(options.num), "--out"]
        cases = {
            f"sample --num {options.num}, {name}": [*words, str(small / name)]
            for name in ("samples.npz", "samples.png", "folder")
        }
        run = str(trained(large, 128, options.images, 10))
        words = ["evaluate", "--run", run, "--threads", "1"]
        cases[f"evaluate, {options.images:,} real images of 128x128"] = words
        for name, words in cases.items():
            memory, seconds = peak(*words)
            print(f"{name}: {memory:.2f} GiB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
