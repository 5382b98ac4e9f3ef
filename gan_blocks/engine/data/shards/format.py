"""The layout of a store of shards: zip files of uncompressed arrays, and the index that makes them a whole.

A store is a folder with ``index.json`` and, for each resolution, a sub-folder such as ``128`` of ``shard_00000.zip``
and so on, all resolutions cut at the same images. A shard holds ``000000.npy``, ``000001.npy``, ...: uint8 pixels of
one image each, (channels, height, width), so that :func:`numpy.load` opens it, too. All entries of a shard are equally
long: the place of an image follows from its number, and no table of places is needed.

Tested in ``tests/engine/data/shards/test_reader.py``.
"""

import io
import json
import math
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_blocks.engine.data.pixels import PixelLayout

__all__ = ["INDEX_NAME", "EntryForm", "IndexFormatError", "ShardFile", "StoreIndex", "entry_info", "shard_name"]

INDEX_NAME = "index.json"
_FORMAT = "gan_blocks shards 1"
_LOCAL_HEADER = 30


class IndexFormatError(Exception):
    """An index that cannot be used; the text says why in a few words."""


def shard_name(number: int) -> str:
    """The file name of the shard with this number, from 0."""
    return f"shard_{number:05}.zip"


def entry_info(place: int) -> zipfile.ZipInfo:
    """The entry of the image at a place of a shard, from 0; without a time, so that equal images give equal files."""
    info = zipfile.ZipInfo(f"{place:06}.npy")
    info.external_attr = 0o644 << 16  # else an unpacked file may be read by nobody
    return info


@dataclass(frozen=True)
class EntryForm:
    """How the entries of a shard of one layout lie in its file."""

    layout: PixelLayout

    @property
    def array_header(self) -> bytes:
        """What comes before the pixels in a file of :func:`numpy.save`."""
        buffer = io.BytesIO()
        values = {"descr": "|u1", "fortran_order": False, "shape": self.layout.shape}
        np.lib.format.write_array_header_1_0(buffer, values)
        return buffer.getvalue()

    @property
    def pixel_bytes(self) -> int:
        """Length of the pixels of one image."""
        return math.prod(self.layout.shape)

    @property
    def prefix_bytes(self) -> int:
        """Length of what comes before the pixels in an entry: its headers and name."""
        return _LOCAL_HEADER + len(entry_info(0).filename) + len(self.array_header)

    @property
    def stride(self) -> int:
        """Distance from one entry to the next."""
        return self.prefix_bytes + self.pixel_bytes


@dataclass(frozen=True)
class ShardFile:
    """What the index says of one shard at one resolution."""

    name: str
    """Path inside the store."""
    bytes: int
    """Length of the file."""
    sha256: str
    """Of the whole file, in hexadecimal."""


@dataclass(frozen=True)
class StoreIndex:
    """All that is known of a store without its pixels."""

    channels: int
    class_names: tuple[str, ...]
    labels: list[int]
    images: tuple[int, ...]
    """How many images each shard holds."""
    shards: dict[int, tuple[ShardFile, ...]]
    """The files at each resolution."""
    notes: tuple[str, ...]
    """What was converted, enlarged or skipped when the store was made."""
    made_from: dict[str, Any]
    """The source and the options that it was made with."""

    def encode(self) -> bytes:
        """The content of ``index.json``."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1).encode() + b"\n"

    @classmethod
    def read(cls, folder: Path) -> "StoreIndex":
        """Read the index of a store.

        Raises:
            IndexFormatError: If it is damaged, or of a kind that this version does not know.
            OSError: If it cannot be read, or is missing.
        """
        data = (folder / INDEX_NAME).read_bytes()
        try:
            values = json.loads(data)
            kind = values.pop("format")
            if kind != _FORMAT:
                raise IndexFormatError(f"it is of the format {kind!r}, where this version reads {_FORMAT!r}")
            index = cls(
                channels=values["channels"],
                class_names=tuple(values["class_names"]),
                labels=values["labels"],
                images=tuple(values["images"]),
                shards={
                    int(resolution): tuple(ShardFile(**shard) for shard in shards)
                    for resolution, shards in values["shards"].items()
                },
                notes=tuple(values["notes"]),
                made_from=values["made_from"],
            )
            consistent = index.is_consistent()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IndexFormatError("it is garbled") from error
        if not consistent:
            raise IndexFormatError("it contradicts itself")
        return index

    def is_consistent(self) -> bool:
        """Whether counts, labels and files fit together."""
        return (
            self.channels in (1, 3)
            and bool(self.labels)
            and sum(self.images) == len(self.labels)
            and min(self.images) >= 0
            and min(self.labels) >= 0
            and max(self.labels) < len(self.class_names)
            and bool(self.shards)
            and all(len(shards) == len(self.images) for shards in self.shards.values())
        )
