"""How fast batches of real images are read: from a folder of image files, decoded each time, and from shards.

``python -m benchmarks.data_reading`` draws smooth color noise, saves it as photographs of 400 x 300 pixels and as
files of 128 x 128, prepares a store, and reads random batches from each in turn, so that what else the machine does
slows all of them; by the clock also from torch's DataLoader with Pillow's own resampling, which is close to exact only.
Everything is in the page cache: it is the processor's work that is measured, not a disk's.
"""

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.timing import Case, add_clock_option, clock_of, machine, spread_of, timed_in_turn
from gan_blocks.engine import ImageSet, load_images, run_console_command
from gan_blocks.engine.base.randomness import sample_indices

SIDE = 128
CLASSES = 2
DATA_LOADER = "torch's DataLoader with Pillow, JPEG of 400x300"


def photograph(random: np.random.Generator) -> Image.Image:
    """Noise of several scales, which compresses about as a photograph does."""
    total: NDArray[np.float64] = np.zeros((300, 400, 3))
    for size in (3, 12, 48, 192):
        coarse = random.integers(0, 256, (size * 3 // 4 + 1, size, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)) / 4
    return Image.fromarray(total.astype(np.uint8))


def write_folders(root: Path, count: int) -> None:
    """The same pictures as large JPEG, small JPEG and small PNG files."""
    random = np.random.default_rng(0)
    for number in range(count):
        large = photograph(random)
        small = large.crop((50, 0, 350, 300)).resize((SIDE, SIDE), Image.Resampling.BOX)
        for name, image, suffix in (("large", large, "jpg"), ("small", small, "jpg"), ("exact", small, "png")):
            folder = root / name / str(number % CLASSES)
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number:05}.{suffix}", quality=90)  # of JPEG; PNG takes no notice


class _PillowImages(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """What most programs do: decode, crop, resize with Pillow's own BOX filter, scale to [-1, 1]."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[number]) as image:
            square = image.convert("RGB").crop((50, 0, 350, 300)).resize((SIDE, SIDE), Image.Resampling.BOX)
        pixels = torch.from_numpy(np.asarray(square).transpose(2, 0, 1).copy())
        return pixels.float().div_(127.5).sub_(1), int(self.paths[number].parent.name)


def pillow_loader(paths: list[Path], batch: int, batches: int) -> "torch.utils.data.DataLoader[Any]":
    """Random batches of the same files by torch's DataLoader, one worker a core, which stay for the next epoch."""
    images = _PillowImages(paths)
    draw = torch.utils.data.RandomSampler(images, replacement=True, num_samples=batch * batches)
    workers = os.cpu_count() or 1
    return torch.utils.data.DataLoader(
        images, batch_size=batch, sampler=draw, num_workers=workers, persistent_workers=True
    )


def read_epoch(loader: "torch.utils.data.DataLoader[Any]", _round: int) -> None:
    """A whole epoch."""
    for _ in loader:
        pass


def read_batches(images: ImageSet, batch: int, batches: int, number: int) -> None:
    """Random batches in the order of a training: those of a round."""
    for first in range((number - 1) * batches * batch, number * batches * batch, batch):
        images.batch(sample_indices(0, len(images), first, batch))


def main() -> None:
    """Time each source in turn, print medians and ratios."""
    parser = argparse.ArgumentParser(description="Reading batches of 128x128 images from files and from shards.")
    parser.add_argument("--images", type=int, default=400, help="images of each kind")
    parser.add_argument("--batch", type=int, default=64, help="images in a batch")
    parser.add_argument("--batches", type=int, default=4, help="batches in a measurement")
    parser.add_argument("--rounds", type=int, default=7, help="measurements, of which the median counts")
    add_clock_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.images} images, batches of {options.batch}, {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_folders(root, options.images)
        words = f"--data folder:{root}/large --out {root}/store --resolution {SIDE} --shard-images 100"
        run_console_command("prepare", words.split(), prog="prepare")

        def load(spec: str, resolution: int = SIDE) -> ImageSet:
            return load_images(spec, resolution=resolution, channels=3, num_classes=CLASSES, memory_limit=0)

        sources = {
            "folder, JPEG of 400x300": load(f"folder:{root}/large"),
            "folder, JPEG of 128x128": load(f"folder:{root}/small"),
            "folder, PNG of 128x128": load(f"folder:{root}/exact"),
            "shards of 128x128": load(f"shards:{root}/store"),
            "shards of 128x128, read as 64x64": load(f"shards:{root}/store", 64),
        }
        cases: dict[str, Case] = {
            name: partial(read_batches, images, options.batch, options.batches) for name, images in sources.items()
        }
        if not options.cpu_time:  # which does not see the time of the DataLoader's processes
            loader = pillow_loader(sorted((root / "large").rglob("*.jpg")), options.batch, options.batches)
            cases[DATA_LOADER] = partial(read_epoch, loader)
        times = timed_in_turn(cases, options.rounds, clock_of(options))
        sizes = {
            folder.name: sum(path.stat().st_size for path in folder.rglob("*.*")) / options.images
            for folder in sorted(root.iterdir())
        }
    unit = "images per CPU second" if options.cpu_time else "images per second"
    rates = {
        name: spread_of(options.batches * options.batch / seconds for seconds in taken) for name, taken in times.items()
    }
    first = next(iter(rates.values())).median
    for name, (rate, low, high) in rates.items():
        print(f"{name}: {rate:,.0f} {unit} ({low:,.0f}, {high:,.0f}), {rate / first:.1f} times the first")
    print("bytes an image: " + ", ".join(f"{name} {size:,.0f}" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
