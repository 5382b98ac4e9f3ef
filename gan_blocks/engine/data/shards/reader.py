"""The source of a prepared store: images are read from its shards when they are asked for, any in any order.

Only the index is kept in memory. A process reads the images of its own part of a batch and nothing else.

Tested in ``tests/engine/data/shards/test_reader.py``.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan_blocks.engine.base.contents import other_content
from gan_blocks.engine.base.parallel.threads import ImageThreads
from gan_blocks.engine.data.image_set import ImageSet, digest_of_files
from gan_blocks.engine.data.pixels import PixelLayout, to_pixels
from gan_blocks.engine.data.shards.format import INDEX_NAME, EntryForm, IndexFormatError, StoreIndex, entry_info
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import DataShape, ReadRequest, SourceKind

__all__ = ["SHARDS", "load_shards"]

# Shards that stay open; those beyond are opened for each image, so that a process never runs out of file descriptors.
_KEPT_OPEN = 256
_SHARE_OF_DESCRIPTORS = 4  # no more than a quarter of what the system lets a process have
_AGAIN = "write the store again with gan-blocks prepare"


def load_shards(source: DataSource, layout: PixelLayout) -> ImageSet:
    """Read the index of a store and check that all its files are there and, by their ends, as they were written.

    Images come from the resolution asked for; where it is not stored, the next larger one is shrunk by area as it is
    read, or the largest is enlarged.

    Raises:
        UserError: If the store is missing, unfinished or damaged.
    """
    folder = source.existing_path()
    index = _read_index(source, folder)
    stored = PixelLayout(_best_resolution(index, layout.resolution), index.channels)
    shards = index.shards[stored.resolution]
    form = EntryForm(stored)
    for shard, count in zip(shards, index.images, strict=True):
        path = folder / shard.name
        if not path.is_file():
            raise source.error(f"the shard {path} is missing; {_AGAIN}.")
        size = path.stat().st_size
        if size != shard.bytes and (what := other_content(path, "zip archive")) is not None:
            raise source.error(f"the shard {path} {what}.")
        if size != shard.bytes or size < count * form.stride:
            raise source.error(f"the shard {path} is damaged: {size:,} bytes instead of {shard.bytes:,}; {_AGAIN}.")
        if shard.directory_sha256 not in ("", form.directory_sha256(path, count)):
            raise source.error(f"the shard {path} holds other images than were written there; {_AGAIN}.")
    notes = index.notes
    if stored != layout:
        notes = (*notes, f"images are stored as {_words(stored)} and brought to {_words(layout)} when they are read")
    return ImageSet(
        read_pixels=_ShardReader(source, [folder / shard.name for shard in shards], index.images, stored, layout),
        labels=torch.tensor(index.labels, dtype=torch.int64),
        class_names=index.class_names,
        layout=layout,
        notes=notes,
        files=digest_of_files((shard.name, shard.sha256) for shard in shards),
    )


def _read_index(source: DataSource, folder: Path) -> StoreIndex:
    path = folder / INDEX_NAME
    if not path.is_file():
        raise source.error(
            f"there is no {path}: the folder holds no store, or one that is not finished; "
            "the same gan-blocks prepare command as before finishes it."
        )
    try:
        return StoreIndex.read(folder)
    except IndexFormatError as error:
        raise source.error(f"{path} cannot be used: {error}; {_AGAIN}.") from error


def _side(source: DataSource) -> int:
    return max(_read_index(source, source.existing_path()).shards)


def _best_resolution(index: StoreIndex, wanted: int) -> int:
    return min((size for size in index.shards if size >= wanted), default=max(index.shards))


def _words(layout: PixelLayout) -> str:
    return f"{layout.resolution} x {layout.resolution} {'gray' if layout.channels == 1 else 'RGB'}"


def _kept_open() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return _KEPT_OPEN
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = allowed == resource.RLIM_INFINITY
    return _KEPT_OPEN if unlimited else min(_KEPT_OPEN, allowed // _SHARE_OF_DESCRIPTORS)


class _ShardReader:
    """Reads the pixels of numbered images, several shards at a time."""

    def __init__(
        self, source: DataSource, paths: list[Path], counts: tuple[int, ...], stored: PixelLayout, layout: PixelLayout
    ) -> None:
        self._source, self._paths, self._stored, self._layout = source, paths, stored, layout
        self._firsts = np.array(list(accumulate(counts, initial=0)))
        self._form = EntryForm(stored)
        self._header = self._form.array_header
        self._kept_open = _kept_open()
        self._open: dict[int, int] = {}
        self._threads = ImageThreads()

    def __call__(self, indices: Tensor) -> Tensor:
        pixels = np.empty((len(indices), *self._layout.shape), np.uint8)
        numbers = indices.numpy()
        # Each thread goes through its images in the order in which they lie on the disk.
        rows = np.argsort(numbers, kind="stable")
        parts = np.array_split(rows, min(self._threads.count, max(len(rows), 1)))
        for _ in self._threads.map(lambda part: self._read_rows(pixels, numbers, part), parts):
            pass
        return torch.from_numpy(pixels)

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def _read_rows(self, pixels: NDArray[np.uint8], numbers: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        if self._stored == self._layout:
            for row in rows:
                self._read(numbers[row], pixels[row])
            return
        stored = np.empty(self._stored.shape, np.uint8)
        for row in rows:
            self._read(numbers[row], stored)
            image = Image.fromarray(stored[0] if self._stored.channels == 1 else stored.transpose(1, 2, 0).copy())
            pixels[row] = to_pixels(image, self._layout)

    def _read(self, number: int, pixels: NDArray[np.uint8]) -> None:
        """Read one image into an array and check that it is the one, and whole."""
        shard = int(np.searchsorted(self._firsts, number, side="right")) - 1
        place = int(number - self._firsts[shard])
        prefix = bytearray(self._form.prefix_bytes)
        try:
            with self._descriptor(shard) as descriptor:
                # Reading at a place moves no position that threads, or processes after a fork, would share.
                length = os.preadv(descriptor, [prefix, pixels.data], place * self._form.stride)
        except OSError as error:
            raise self._source.error(f"the shard {self._paths[shard]} cannot be read: {error.strerror}.") from error
        if length < self._form.stride or not self._is_whole(prefix, pixels, place):
            raise self._source.error(f"the shard {self._paths[shard]} is damaged at its image {place}; {_AGAIN}.")

    def _is_whole(self, prefix: bytearray, pixels: NDArray[np.uint8], place: int) -> bool:
        name, header = entry_info(place).filename.encode(), self._header
        signature, method, checksum = struct.unpack("<4s4xH4xL", prefix[:18])
        return (
            (signature, method) == (b"PK\3\4", 0)
            and prefix[-len(name) - len(header) :] == name + header
            and zlib.crc32(pixels.data, zlib.crc32(header)) == checksum
        )

    @contextmanager
    def _descriptor(self, shard: int) -> Iterator[int]:
        kept = self._open.get(shard)
        if kept is not None:
            yield kept
            return
        descriptor = os.open(self._paths[shard], os.O_RDONLY)
        # Two threads may have come here at once; the second keeps to its own, and closes it.
        keep = len(self._open) < self._kept_open and self._open.setdefault(shard, descriptor) == descriptor
        try:
            yield descriptor
        finally:
            if not keep:
                os.close(descriptor)


def _read(source: DataSource, request: ReadRequest) -> ImageSet:
    return load_shards(source, request.layout)


def _shape(source: DataSource, _num_classes: int | None) -> DataShape:
    index = _read_index(source, source.existing_path())
    return DataShape(1 if index.channels == 1 else 3, len(index.class_names))


def _holds_store(path: str) -> bool:
    return os.path.isfile(os.path.join(path, INDEX_NAME))  # noqa: PTH113, PTH118 - pathlib's raises for long names


SHARDS = SourceKind(
    name="shards",
    summary="a prepared store: a few large files of decoded images",
    read=_read,
    side=_side,
    shape=_shape,
    recognizes=_holds_store,
    hint="For a prepared store",
)
