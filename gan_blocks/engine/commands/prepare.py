"""Prepare images for training: decode, crop and resample them once, into a store of shards.

    gan-blocks prepare --data folder:PATH --resolution 128 --out stores/mine
    gan-blocks train biggan_deep --data shards:stores/mine ...

Each image is brought to every --resolution in the same way as by a training: cropped along the long edge to the center
square, then resampled by area. One resolution is enough for one network, even for a growing one, which averages the
images down to its current size. Store several if you train networks of several sizes.

With --landmarks, the face in each image is cropped and turned upright as for CelebA-HQ (Karras et al. 2018,
Appendix C):

    gan-blocks prepare --data folder:img_celeba --landmarks list_landmarks_celeba.txt --resolution 1024 --out hq

If it was stopped or killed, run the same command again to continue. A store is complete once it has its index.json,
which is written last; training accepts no other store. On a complete store, the command compares every shard with its
SHA-256.

Tested in ``tests/engine/commands/test_prepare.py``.
"""

import hashlib
import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import writing
from gan_blocks.engine.base.terminal.command_line import parse_options, run_command
from gan_blocks.engine.base.terminal.console import Progress
from gan_blocks.engine.data.opening import MOST_PIXELS
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.shards.format import INDEX_NAME, EntryForm, IndexFormatError, StoreIndex
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.sources import parse_source
from gan_blocks.engine.preparation.store_source import open_store_source
from gan_blocks.engine.preparation.store_writer import CONTINUES, UNFINISHED, StoreWriter, check_made_from
from gan_blocks.engine.recipe.next_steps import console_command, print_next_steps, same_command

__all__ = ["Options", "main"]

_SHARD_BYTES = 256 * 2**20
_LARGEST = math.isqrt(MOST_PIXELS)
_MOST_IMAGES = 1_000_000  # an entry's name has six digits


@dataclass(frozen=True)
class Options:
    """What to prepare, and where to put it."""

    data: str
    """The images: folder:PATH with one sub-folder per class or only images, or any other source of a training. Without
    labels they are one class."""

    out: Path
    """Folder of the store."""

    resolution: tuple[int, ...]
    """Height and width of the stored images; one or more."""

    channels: Literal[1, 3] = 3
    """1 for gray, 3 for RGB."""

    landmarks: Path | None = None
    """Crop faces by the landmarks in this file, in CelebA's format: each line is a file name and x and y of both eyes,
    the nose and both corners of the mouth."""

    shard_images: int | None = None
    """Images in a shard (default: as many as fill 256 MiB at the largest resolution)."""

    workers: int | None = None
    """Threads for decoding and resampling (default: one per core, at most 8)."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.resolution or min(self.resolution) < 1 or len(set(self.resolution)) < len(self.resolution):
            got = " ".join(map(str, self.resolution)) or "none"
            raise UserError(f"--resolution must be one or more different numbers of at least 1, but got {got}.")
        if max(self.resolution) > _LARGEST:
            limit = f"{_LARGEST:,} (an image of {MOST_PIXELS // 10**6:,} megapixels)"
            raise UserError(f"--resolution must be at most {limit}, but got {max(self.resolution)}.")
        if self.shard_images is not None and not 1 <= self.shard_images <= _MOST_IMAGES:
            raise UserError(f"--shard-images must be from 1 to {_MOST_IMAGES:,}, but got {self.shard_images}.")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers must be at least 1, but got {self.workers}.")

    def layouts(self) -> list[PixelLayout]:
        """Resolutions and channels of the store, the largest resolution first."""
        return [PixelLayout(size, self.channels) for size in sorted(self.resolution, reverse=True)]

    def images_in_a_shard(self) -> int:
        """What ``shard_images`` says, or the default for the resolutions."""
        fitting = _SHARD_BYTES // EntryForm(self.layouts()[0]).stride
        return min(max(fitting, 1), _MOST_IMAGES) if self.shard_images is None else self.shard_images

    def source(self) -> DataSource:
        """The source of the images.

        Raises:
            UserError: If it is unknown, or the store would lie in it.
        """
        source = parse_source(self.data)
        if source.path is not None and _resolved(self.out).is_relative_to(_resolved(source.path)):
            raise UserError(f"--out {self.out} lies inside the images of --data; name a folder beside them.")
        return source


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))  # pathlib's raises for links in a circle


def prepare(options: Options) -> StoreIndex:
    """Write the store, or what is missing of it, or check that it is whole."""
    source, layouts = options.source(), options.layouts()
    images = open_store_source(source, layouts, options.landmarks)
    made_from = {
        "data": source.name if source.path is None else f"{source.name}:{_resolved(source.path)}",
        "resolution": [layout.resolution for layout in layouts],
        "channels": options.channels,
        "landmarks": None if options.landmarks is None else str(_resolved(options.landmarks)),
        "shard_images": options.images_in_a_shard(),
        "fingerprint": images.fingerprint,
    }
    if (options.out / INDEX_NAME).exists():
        return _checked_store(options.out, made_from)
    writer = StoreWriter(
        options.out, source, images, layouts, shard_images=options.images_in_a_shard(), made_from=made_from
    )
    sizes = ", ".join(f"{layout.resolution} x {layout.resolution}" for layout in layouts)
    shards = f"{writer.count:,} shard{'s' if writer.count > 1 else ''}"
    print(f"Preparing {len(images.labels):,} images at {sizes} in {shards} of each size.")
    if writer.done:
        print(f"Continuing: {writer.done:,} of {shards} of each size are there.")
    return writer.write(threads=options.workers)


def _checked_store(folder: Path, made_from: dict[str, Any]) -> StoreIndex:
    """The index of a whole store, after a look at every byte of it."""
    try:
        index = StoreIndex.read(folder)
    except IndexFormatError as error:
        raise UserError(f"{folder / INDEX_NAME} cannot be used: {error}; name another --out.") from error
    check_made_from(folder, index.made_from, made_from)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)  # left by a kill just after the index
    shards = [shard for of_size in index.shards.values() for shard in of_size]
    for shard in Progress(shards, desc="checking shards", unit="shard", delay=2, leave=False, disable=None):
        path = folder / shard.name
        if not path.is_file():
            raise UserError(f"the shard {path} is missing; remove {folder} and start again.")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                raise UserError(f"the shard {path} is damaged (its SHA-256 differs); remove {folder} and start again.")
    print(f"The store is there already, and each of its {len(shards):,} shards is whole.")
    return index


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks prepare") -> int:
    """Prepare; see ``gan-blocks prepare --help``."""

    def command() -> int:
        options = parse_options(Options, prog=prog, description=__doc__ or "", args=argv)
        try:
            with writing(options.out, remedy=CONTINUES):
                index = prepare(options)
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            print_next_steps({"continue": same_command(prog, argv)})
            return 130
        for note in index.notes:
            print(f"Note: {note}.")
        size = sum(shard.bytes for shards in index.shards.values() for shard in shards)
        classes = f"{len(index.class_names):,} class{'es' if len(index.class_names) > 1 else ''}"
        print(f"{len(index.labels):,} images of {classes}, {size / 1e6:,.1f} MB.")
        one_class = ["--num-classes", 1] if len(index.class_names) == 1 else []
        train = console_command("train", "biggan_deep", "--data", f"shards:{options.out}", *one_class)
        print_next_steps({"train": train, "other recipes": console_command("presets")})
        return 0

    return run_command("prepare", command)
