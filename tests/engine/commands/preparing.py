"""Preparing stores of small pictures, and comparing what is in them."""

import shutil
from pathlib import Path

import torch

from gan_blocks.engine.commands import prepare
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images

SIZES = ("--resolution", "4", "8", "--shard-images", "5")


def run(pictures: Path, store: Path, *more: str) -> int:
    return prepare.main(["--data", f"folder:{pictures}", "--out", str(store), *SIZES, *more])


def load(spec: str, resolution: int, channels: int = 3) -> ImageSet:
    return load_images(spec, resolution=resolution, channels=channels, num_classes=None)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_equal_sets(found: ImageSet, wanted: ImageSet) -> None:
    assert torch.equal(found.labels, wanted.labels)
    assert found.class_names == wanted.class_names
    everything = torch.arange(len(wanted))
    assert torch.equal(found.read_pixels(everything), wanted.read_pixels(everything))


def damage_two(pictures: Path) -> None:
    for number in range(250):
        shutil.copy(pictures / "ant" / "01.jpg", pictures / "ant" / f"more_{number:03}.jpg")
    for name in ("cat/00.png", "ant/more_249.jpg"):
        (pictures / name).write_bytes(b"no image")
