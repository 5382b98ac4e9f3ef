"""Writing one shard of a store, so that no crash leaves a part of it under its name.

Tested in ``tests/engine/data/shards/test_reader.py``.
"""

import hashlib
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gan_blocks.engine.base.files import open_fresh, sync_directory
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.shards.format import EntryForm, ShardFile, entry_info

__all__ = ["ShardWriter"]


class ShardWriter:
    """Writes images into a new shard; as a context it takes its name when :meth:`finish` is called, else it is removed.

    Args:
        store: Folder of the store.
        name: Path of the shard inside the store; a file of that name is replaced.
        layout: Of every image.
    """

    def __init__(self, store: Path, name: str, layout: PixelLayout) -> None:
        self._name, self._layout = name, layout
        self._path = store / name
        self._temporary = self._path.with_name(f".{self._path.name}.tmp")
        self._header = EntryForm(layout).array_header
        self._count = 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_fresh(self._temporary)
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not finished."""
        with suppress(OSError):  # of a full disk, again
            self._zip.close()
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Append an image, (channels, height, width)."""
        if pixels.shape != self._layout.shape or pixels.dtype != np.uint8:
            raise ValueError(f"ShardWriter: images must be uint8 {self._layout.shape}, but got {pixels.shape}.")
        self._zip.writestr(entry_info(self._count), self._header + pixels.tobytes())
        self._count += 1

    def finish(self) -> ShardFile:
        """Flush the shard to the disk and give it its name."""
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        with self._temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        directory = EntryForm(self._layout).directory_sha256(self._temporary, self._count)
        size = self._temporary.stat().st_size
        self._temporary.replace(self._path)
        sync_directory(self._path.parent)
        return ShardFile(self._name, size, digest, directory)
