"""The images that a store of shards is made from, each at all the resolutions of the store.

Tested in ``tests/engine/commands/test_prepare.py``.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.kinds.folder_listing import FolderListing
from gan_blocks.engine.data.pixels import DamagedImageError, ImageFacts, PixelLayout, convert_file, to_mode, to_pixels
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import ReadRequest
from gan_blocks.engine.data.sources import kind_of, read_source
from gan_blocks.engine.preparation.aligned_crop import aligned_crop
from gan_blocks.engine.preparation.landmarks import points_of_files, read_landmarks

__all__ = ["DamagedFile", "PreparedImage", "StoreSource", "open_store_source"]


Pixels = tuple[NDArray[np.uint8], ...]


class PreparedImage(NamedTuple):
    """The pixels of an image at each resolution of the store."""

    pixels: Pixels
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
    """Of names, labels and landmarks, not of pixels: tells if a source is still the same when a store is continued."""


def open_store_source(source: DataSource, layouts: Sequence[PixelLayout], landmarks: Path | None = None) -> StoreSource:
    """Open what ``--data`` names; images without labels are one class.

    Args:
        source: The source.
        layouts: Resolutions and channels of the store, the largest resolution first.
        landmarks: File of the landmarks of the faces to crop, or None to crop squares from the middle of the images.

    Raises:
        UserError: If the source is missing or damaged, or no image of it has landmarks.
    """
    list_files = kind_of(source).list_files
    try:
        if landmarks is not None:
            if list_files is None:
                raise UserError(f"--landmarks is for image files: --data folder:PATH, but got --data {source.spec}.")
            return _faces_from_folder(source, list_files(source), layouts, landmarks)
        if list_files is not None:
            return _from_folder(source, list_files(source), layouts)
        # Images without labels are one class, as those of a folder without sub-folders are.
        return _from_sets(source, [read_source(source, ReadRequest(layout, num_classes=1)) for layout in layouts])
    except OSError as error:
        raise source.error(f"cannot be read: {error}.") from error


def _from_folder(source: DataSource, listing: FolderListing, layouts: Sequence[PixelLayout]) -> StoreSource:
    def center_squares(_number: int, image: Image.Image) -> Pixels:
        return tuple(to_pixels(image, layout) for layout in layouts)

    return StoreSource(
        read=partial(_read_file, listing.paths, layouts[0], center_squares),
        labels=listing.labels,
        class_names=listing.class_names,
        notes=listing.notes,
        fingerprint=_fingerprint(_names(source, listing), listing.labels, listing.class_names),
    )


def _faces_from_folder(
    source: DataSource, listing: FolderListing, layouts: Sequence[PixelLayout], landmarks: Path
) -> StoreSource:
    names = _names(source, listing)
    found = points_of_files(read_landmarks(landmarks), names)
    kept = [number for number, points in enumerate(found) if points is not None]
    if not kept:
        raise UserError(f"--landmarks {landmarks} names none of the images, such as {names[0]}.")
    paths = [listing.paths[number] for number in kept]
    faces = [points for points in found if points is not None]

    def aligned_crops(number: int, image: Image.Image) -> Pixels:
        pixels = np.asarray(to_mode(image, layouts[0].mode)).reshape(image.height, image.width, -1)
        return tuple(aligned_crop(pixels, faces[number], layout.resolution) for layout in layouts)

    def read(number: int) -> PreparedImage | DamagedFile:
        result = _read_file(paths, layouts[0], aligned_crops, number)
        if isinstance(result, PreparedImage) and result.facts is not None:
            # The size of the picture says nothing of the size of the face; each is cropped, and none is enlarged.
            return result._replace(facts=result.facts._replace(enlarged=False, cropped=False))
        return result

    notes = listing.notes
    if len(kept) < len(found):
        left_out = names[found.index(None)]
        missing = len(found) - len(kept)
        notes = (*notes, f"left out for want of landmarks: {missing:,} of {len(found):,} images, such as {left_out}")
    labels = [listing.labels[number] for number in kept]
    return StoreSource(
        read=read,
        labels=labels,
        class_names=listing.class_names,
        notes=notes,
        fingerprint=_fingerprint([names[number] for number in kept], labels, listing.class_names, faces),
    )


def _names(source: DataSource, listing: FolderListing) -> list[str]:
    return [os.path.relpath(path, source.path) for path in listing.paths]


def _read_file(
    paths: list[str], layout: PixelLayout, cut: Callable[[int, Image.Image], Pixels], number: int
) -> PreparedImage | DamagedFile:
    try:
        return PreparedImage(*convert_file(paths[number], layout, partial(cut, number)))
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
