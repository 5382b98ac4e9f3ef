"""The images that a store of shards is made from, each at all the resolutions of the store.

Tested in ``tests/recipes/test_prepare.py``.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from recipes._engine.data import read_source
from recipes._engine.data_source import DataSource
from recipes._engine.folder_listing import FolderListing, list_flat_folder
from recipes._engine.image_files import DamagedImageError, ImageFacts, PixelLayout, convert_file, to_pixels
from recipes._engine.image_set import ImageSet

__all__ = ["DamagedFile", "PreparedImage", "StoreSource", "open_store_source"]


class PreparedImage(NamedTuple):
    """The pixels of an image at each resolution of the store."""

    pixels: tuple[NDArray[np.uint8], ...]
    facts: ImageFacts | None
    """What was converted, for the notes; None where the source's own notes say it."""


class DamagedFile(NamedTuple):
    """An image that cannot be read."""

    path: str
    reason: str


@dataclass(frozen=True)
class StoreSource:
    """Numbered images with labels."""

    read: Callable[[int], PreparedImage | DamagedFile]
    """Gives the image of a number; safe to call from any thread."""
    labels: list[int]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str
    """Tells whether a source is still the same when a store is continued: of names and labels, not of pixels."""


def open_store_source(source: DataSource, layouts: Sequence[PixelLayout]) -> StoreSource:
    """Open what ``--data`` names; a folder may also hold images directly, which are one class.

    Args:
        source: The source.
        layouts: Resolutions and channels of the store, the largest resolution first.

    Raises:
        UserError: If the source is missing or damaged.
    """
    try:
        if source.name == "folder":
            return _from_folder(source, list_flat_folder(source), layouts)
        return _from_sets(source, [read_source(source, layout) for layout in layouts])
    except OSError as error:
        raise source.error(f"cannot be read: {error}.") from error


def _from_folder(source: DataSource, listing: FolderListing, layouts: Sequence[PixelLayout]) -> StoreSource:
    names = [os.path.relpath(path, source.path) for path in listing.paths]
    return StoreSource(
        read=partial(_read_file, listing.paths, tuple(layouts)),
        labels=listing.labels,
        class_names=listing.class_names,
        notes=listing.notes,
        fingerprint=_fingerprint(names, listing.labels, listing.class_names),
    )


def _read_file(paths: list[str], layouts: tuple[PixelLayout, ...], number: int) -> PreparedImage | DamagedFile:
    def all_sizes(image: Image.Image) -> tuple[NDArray[np.uint8], ...]:
        return tuple(to_pixels(image, layout) for layout in layouts)

    try:
        return PreparedImage(*convert_file(paths[number], layouts[0], all_sizes))
    except DamagedImageError as error:
        return DamagedFile(paths[number], str(error))


def _from_sets(source: DataSource, sets: list[ImageSet]) -> StoreSource:
    def read(number: int) -> PreparedImage:
        index = torch.tensor([number])
        return PreparedImage(tuple(images.read_pixels(index)[0].numpy() for images in sets), None)

    first = sets[0]
    labels = first.labels.tolist()
    changed = source.path.stat().st_mtime_ns if source.path is not None else 0
    return StoreSource(
        read=read,
        labels=labels,
        class_names=first.class_names,
        notes=first.notes,
        fingerprint=_fingerprint(labels, first.class_names, changed),
    )


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
