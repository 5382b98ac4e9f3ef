"""The source of a user's own image files: a folder with one sub-folder a class.

Tested in ``tests/engine/data/kinds/test_folder.py``.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_blocks.engine.base.parallel.threads import ImageThreads, map_in_threads
from gan_blocks.engine.data.image_set import ImageSet, digest_of_files
from gan_blocks.engine.data.kinds.folder_listing import list_flat_folder, list_folder
from gan_blocks.engine.data.pixels import (
    GRAY_MODES,
    DamagedImageError,
    ImageFacts,
    PixelLayout,
    conversion_notes,
    convert_file,
    inspect_file,
    read_file,
)
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import DataShape, ReadRequest, SourceKind

__all__ = ["FOLDER", "check_damage", "damage_notes", "load_folder"]

_DAMAGE_LIMIT = 0.01
_NAMED = 3
_LOOKED_AT = 256


def load_folder(source: DataSource, layout: PixelLayout, *, memory_limit: int, flat: bool = False) -> ImageSet:
    """List all images of a folder, decode each once to find the damaged ones, and keep the pixels if they fit.

    Pixels of more than ``memory_limit`` bytes in total are not kept: every batch reads its files again. With ``flat``
    the images may also lie in the folder itself, as one class.

    Raises:
        UserError: If the folder is missing or has no images in sub-folders, or more than 1 % of them are damaged.
    """
    listing = list_flat_folder(source) if flat else list_folder(source)
    keep = len(listing.paths) * math.prod(layout.shape) <= memory_limit
    checked = _check_files(source, listing.paths, layout, keep_pixels=keep)
    whole = [listing.paths[number] for number in checked.whole]
    root = str(source.path)
    read: Callable[[Tensor], Tensor]
    if checked.pixels is not None:
        read = partial(torch.index_select, torch.from_numpy(checked.pixels), 0)
    else:
        read = _FileReader(source, whole, layout)
    return ImageSet(
        read_pixels=read,
        labels=torch.tensor([listing.labels[number] for number in checked.whole], dtype=torch.int64),
        class_names=listing.class_names,
        layout=layout,
        notes=(*listing.notes, *checked.notes),
        # Paths of a million images are text: pathlib would take as long as a good part of the decoding.
        files=digest_of_files((path.removeprefix(root), os.stat(path).st_size) for path in whole),  # noqa: PTH116
    )


def check_damage(source: DataSource, damaged: Mapping[str, str], total: int) -> None:
    """Refuse a set of which more than 1 % is damaged.

    Args:
        source: Where the set comes from.
        damaged: Why each damaged file cannot be read, by its path.
        total: How many files there are.

    Raises:
        UserError: If there is so much damage; it names the first few files.
    """
    if len(damaged) > _DAMAGE_LIMIT * total:
        raise source.error(f"{_damage(damaged, total)}; above 1 % this is fatal: fix or remove them.")


def damage_notes(damaged: Mapping[str, str], total: int) -> list[str]:
    """Say in at most one line what was skipped."""
    return [f"skipped: {_damage(damaged, total)}"] if damaged else []


def _damage(damaged: Mapping[str, str], total: int) -> str:
    named = ", ".join(f"{path} ({reason})" for path, reason in islice(damaged.items(), _NAMED))
    more = f" and {len(damaged) - _NAMED:,} more" if len(damaged) > _NAMED else ""
    return f"{len(damaged):,} of {total:,} image files cannot be read: {named}{more}"


class _Checked(NamedTuple):
    whole: list[int]
    pixels: NDArray[np.uint8] | None
    notes: list[str]


def _check_files(source: DataSource, paths: list[str], layout: PixelLayout, *, keep_pixels: bool) -> _Checked:
    pixels = np.empty((len(paths), *layout.shape), np.uint8) if keep_pixels else None
    whole: list[int] = []
    facts: Counter[ImageFacts] = Counter()
    damaged: dict[str, str] = {}
    attempt = partial(_attempt, layout=layout, keep_pixels=keep_pixels)
    results = map_in_threads(attempt, paths, description="reading images" if keep_pixels else "checking images")
    for number, (path, result) in enumerate(zip(paths, results, strict=True)):
        if isinstance(result, DamagedImageError):
            damaged[path] = str(result)
            continue
        image, fact = result
        if pixels is not None and image is not None:
            pixels[len(whole)] = image
        whole.append(number)
        facts[fact] += 1
    check_damage(source, damaged, len(paths))
    notes = [*conversion_notes(facts, layout), *damage_notes(damaged, len(paths))]
    return _Checked(whole, None if pixels is None else pixels[: len(whole)], notes)


def _attempt(
    path: str, *, layout: PixelLayout, keep_pixels: bool
) -> tuple[NDArray[np.uint8] | None, ImageFacts] | DamagedImageError:
    try:
        return read_file(path, layout) if keep_pixels else (None, inspect_file(path, layout))
    except DamagedImageError as error:
        return error


class _FileReader:
    """Reads the pixels of numbered files again for every batch, several files at a time."""

    def __init__(self, source: DataSource, paths: list[str], layout: PixelLayout) -> None:
        self._source, self._paths, self._layout = source, paths, layout
        self._threads = ImageThreads()

    def __call__(self, indices: Tensor) -> Tensor:
        pixels = np.empty((len(indices), *self._layout.shape), np.uint8)
        paths = [self._paths[index] for index in indices.tolist()]
        for row, image in zip(pixels, self._threads.map(self._read, paths), strict=True):
            row[:] = image
        return torch.from_numpy(pixels)

    def _read(self, path: str) -> NDArray[np.uint8]:
        try:
            return read_file(path, self._layout)[0]
        except DamagedImageError as error:
            raise self._source.error(f"{path} was whole at the start but cannot be read any more: {error}.") from error


def _read(source: DataSource, request: ReadRequest) -> ImageSet:
    return load_folder(source, request.layout, memory_limit=request.memory_limit, flat=request.num_classes == 1)


def _shape(source: DataSource, num_classes: int | None) -> DataShape:
    """Networks are to show colors where one of a few files, spread over the whole folder, has any."""
    listing = list_flat_folder(source) if num_classes == 1 else list_folder(source)
    step = -(-len(listing.paths) // _LOOKED_AT)
    colored = any(map(_is_colored, listing.paths[::step]))
    return DataShape(3 if colored else 1, len(listing.class_names))


def _side(source: DataSource) -> int:
    """That of the center square of the first image that can be read."""
    for path in list_flat_folder(source).paths:
        with suppress(DamagedImageError):
            return convert_file(path, PixelLayout(1, 3), lambda image: min(image.size))[0]
    raise source.error("no image can be read.")


def _is_colored(path: str) -> bool:
    try:
        return inspect_file(path, PixelLayout(1, 3)).mode not in GRAY_MODES
    except DamagedImageError:  # told of when all are read
        return False


FOLDER = SourceKind(
    name="folder",
    summary="image files, one sub-folder a class",
    read=_read,
    shape=_shape,
    side=_side,
    recognizes=os.path.isdir,
    hint="For a folder with one sub-folder a class",
    one_level_off=True,
    list_files=list_flat_folder,
)
