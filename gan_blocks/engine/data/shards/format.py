"""The layout of a store of shards: zip files of uncompressed arrays, and the index that makes them a whole.

A store is a folder with ``index.json`` and, for each resolution, a sub-folder such as ``128`` of ``shard_00000.zip``
and so on, all resolutions cut at the same images. A shard holds ``000000.npy``, ``000001.npy``, ...: uint8 pixels of
one image each, (channels, height, width), so that :func:`numpy.load` opens it, too. All entries of a shard are equally
long: the place of an image follows from its number, and no table of places is needed.

Tested in ``tests/engine/data/shards/test_reader.py``.
"""

import hashlib
import io
import json
import math
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_blocks.engine.base.contents import is_special, other_content
from gan_blocks.engine.base.json_values import check_shape, is_count, is_list_of, is_object, is_text, parse_object
from gan_blocks.engine.data.pixels import PixelLayout

__all__ = ["INDEX_NAME", "EntryForm", "IndexFormatError", "ShardFile", "StoreIndex", "entry_info", "shard_name"]

INDEX_NAME = "index.json"
_FORMAT = "gan_blocks shards 1"
_LOCAL_HEADER = 30

_SHAPE = {
    "channels": is_count,
    "class_names": is_list_of(str),
    "labels": is_list_of(int),
    "images": is_list_of(int),
    "shards": is_object,
    "notes": is_list_of(str),
    "made_from": is_object,
}


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

    def directory_sha256(self, path: Path, count: int) -> str:
        """SHA-256 of what follows the entries of a shard of so many images: the zip file's list of their checksums."""
        with path.open("rb") as file:
            file.seek(count * self.stride)
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class ShardFile:
    """What the index says of one shard at one resolution."""

    name: str
    """Path inside the store."""
    bytes: int
    """Length of the file."""
    sha256: str
    """Of the whole file, in hexadecimal."""
    directory_sha256: str = ""
    """Of its end (:meth:`EntryForm.directory_sha256`), which differs if any image does; empty in older stores."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ShardFile":
        """Read what the index says.

        Raises:
            DamagedJsonError: If that is something else.
        """
        check_shape(values, {"name": is_text, "bytes": is_count, "sha256": is_text})
        check_shape({"directory_sha256": "", **values}, {"directory_sha256": is_text})
        return cls(values["name"], values["bytes"], values["sha256"], values.get("directory_sha256", ""))


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
        path = folder / INDEX_NAME
        if is_special(path):
            raise IndexFormatError("it is no regular file")
        data = path.read_bytes()
        try:
            values = parse_object(data, {"format": is_text})
            if values["format"] != _FORMAT:
                found = values["format"][:60]
                raise IndexFormatError(f"it is of the format {found!r}, where this version reads {_FORMAT!r}")
            check_shape(values, _SHAPE)
            check_shape(values["shards"], dict.fromkeys(values["shards"], is_list_of(dict)))
            index = cls(
                channels=values["channels"],
                class_names=tuple(values["class_names"]),
                labels=values["labels"],
                images=tuple(values["images"]),
                shards={
                    int(resolution): tuple(map(ShardFile.from_json, shards))
                    for resolution, shards in values["shards"].items()
                },
                notes=tuple(values["notes"]),
                made_from=values["made_from"],
            )
            consistent = index.is_consistent()
        except ValueError as error:
            raise IndexFormatError(f"it {other_content(path, 'JSON', 'text file') or 'is garbled'}") from error
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
            and min(self.shards) >= 1
            and all(len(shards) == len(self.images) for shards in self.shards.values())
        )
