"""How fast batches of real images are read: from a folder of image files, decoded each time, and from shards.

``python -m benchmarks.data_reading`` draws smooth color noise, saves it as photographs of 400 x 300 pixels and as
files of 128 x 128, prepares a store, and reads random batches from each in turn, so that what else the machine does
slows all of them; by the clock also from torch's DataLoader with Pillow's own resampling, which is close to exact only.
Everything is in the page cache: it is the processor's work that is measured, not a disk's.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

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


def epochs_per_second(loader: "torch.utils.data.DataLoader[Any]") -> float:
    """Rate of images of a whole epoch."""
    began = time.perf_counter()
    count = sum(len(labels) for _, labels in loader)
    return count / (time.perf_counter() - began)


def images_per_second(images: ImageSet, clock: Callable[[], float], start: int, batch: int, batches: int) -> float:
    """Rate of reading random batches in the order of a training."""
    began = clock()
    for number in range(batches):
        images.batch(sample_indices(0, len(images), start + number * batch, batch))
    return batches * batch / (clock() - began)


def main() -> None:
    """Time each source in turn, print medians and ratios."""
    parser = argparse.ArgumentParser(description="Reading batches of 128x128 images from files and from shards.")
    parser.add_argument("--images", type=int, default=400, help="images of each kind")
    parser.add_argument("--batch", type=int, default=64, help="images in a batch")
    parser.add_argument("--batches", type=int, default=4, help="batches in a measurement")
    parser.add_argument("--rounds", type=int, default=7, help="measurements, of which the median counts")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time, of all threads: on a busy machine")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_folders(root, options.images)
        words = f"--data folder:{root}/large --out {root}/store --resolution {SIDE} --shard-images 100"
        run_console_command("prepare", words.split(), prog="prepare")

        def load(spec: str, resolution: int = SIDE) -> ImageSet:
            return load_images(spec, resolution=resolution, channels=3, num_classes=CLASSES, memory_limit=0)

        cases = {
            "folder, JPEG of 400x300": load(f"folder:{root}/large"),
            "folder, JPEG of 128x128": load(f"folder:{root}/small"),
            "folder, PNG of 128x128": load(f"folder:{root}/exact"),
            "shards of 128x128": load(f"shards:{root}/store"),
            "shards of 128x128, read as 64x64": load(f"shards:{root}/store", 64),
        }
        loader = pillow_loader(sorted((root / "large").rglob("*.jpg")), options.batch, options.batches)
        rates: dict[str, list[float]] = {name: [] for name in (*cases, *([] if options.cpu_time else [DATA_LOADER]))}
        for number in range(options.rounds + 1):
            for name, images in cases.items():
                start = number * options.batches * options.batch
                rate = images_per_second(images, clock, start, options.batch, options.batches)
                if number:  # the first is warm-up
                    rates[name].append(rate)
            if not options.cpu_time:  # which does not see the workers' time
                rate = epochs_per_second(loader)
                if number:
                    rates[DATA_LOADER].append(rate)
        sizes = {
            folder.name: sum(path.stat().st_size for path in folder.rglob("*.*")) / options.images
            for folder in sorted(root.iterdir())
        }
    unit = "images per CPU second" if options.cpu_time else "images per second"
    print(f"{options.images} images, batches of {options.batch}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    baseline = statistics.median(rates["folder, JPEG of 400x300"])
    for name, measured in rates.items():
        low, rate, high = statistics.quantiles(measured, n=4)
        print(f"{name}: {rate:,.0f} {unit} ({low:,.0f}, {high:,.0f}), {rate / baseline:.1f} times the first")
    print("bytes an image: " + ", ".join(f"{name} {size:,.0f}" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
