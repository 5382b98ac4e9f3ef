"""The images of ``gan-blocks evaluate --images A --against B``, brought to one size and one set of classes.

Tested in ``tests/engine/commands/evaluation/test_images.py``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.memory import check_fits
from gan_blocks.engine.data.config import ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import DataShape, ReadRequest
from gan_blocks.engine.data.sources import kind_of, read_source, recognized, shape_of_source, side_of_source

__all__ = ["GivenImages", "load_given_images"]

UNLABELED = {"0", "all images"}


class GivenImages(NamedTuple):
    """Two sets of images of one layout, whose labels name the same classes."""

    images: ImageSet
    real: ImageSet
    config: ImageFields
    notes: tuple[str, ...]


def load_given_images(images: str, against: str, resolution: int | None) -> GivenImages:
    """Load both; without classes in common all are of one.

    Raises:
        UserError: If a set cannot be read, has too few images, or has classes that the other lacks.
    """
    sources = [recognized(images, option="--images"), recognized(against, option="--against")]
    shapes = [_shape(source) for source in sources]
    sides = [side_of_source(source) for source in sources]
    layout = PixelLayout(resolution or sides[0], max(shape.channels for shape in shapes))
    check_fits(f"images of {layout.resolution:,} x {layout.resolution:,} pixels", 2 * 4 * math.prod(layout.shape))
    given, real = (
        read_source(source, ReadRequest(layout, None if shape.num_classes > 1 else 1))
        for source, shape in zip(sources, shapes, strict=True)
    )
    notes = [
        f"{source.option}: {note}" for source, read in zip(sources, (given, real), strict=True) for note in read.notes
    ]
    notes += _notes_on_size(sources, sides, resolution)
    if _telling_names(given) & _telling_names(real):
        given = _with_classes_of(given, real)
    else:
        if max(given.num_classes, real.num_classes) > 1:
            notes.append(_why_of_one_class(given, real))
        given, real = _of_one_class(given), _of_one_class(real)
    for source, read in zip(sources, (given, real), strict=True):
        if len(read) < 2:
            raise source.error(f"it holds {len(read)} image; at least 2 are needed.")
    config = ImageFields(
        data=sources[1].spec,
        resolution=layout.resolution,
        image_channels=layout.channels,  # type: ignore[arg-type]
        num_classes=real.num_classes,
    )
    return GivenImages(given, real, config, tuple(notes))


def _notes_on_size(sources: Sequence[DataSource], sides: Sequence[int], resolution: int | None) -> Iterator[str]:
    """What the readers do not tell of: that images are shrunk."""
    side = resolution or sides[0]
    size = f"{side} x {side}"
    if any(kind_of(source).list_files for source in sources):  # files may each have a size of their own
        why = "" if resolution else ", the side of the first of --images; --resolution sets another"
        yield f"all images are brought to {size}{why}."
    for source, before in zip(sources, sides, strict=True):
        if before > side and not kind_of(source).list_files:
            yield f"{source.option}: images of {before} x {before} pixels are brought to {size} by area."


def _shape(source: DataSource) -> DataShape:
    """Channels and classes; one class where labels cannot be had."""
    try:
        found = shape_of_source(source, None)
    except UserError:  # a folder without sub-folders, arrays without labels, or what is really wrong with it
        found = shape_of_source(source, 1)
        return DataShape(found.channels if found is not None else 3, 1)
    return found or DataShape(3, 2)


def _telling_names(images: ImageSet) -> set[str]:
    """The names of its classes, without those that readers give to images of no class."""
    return set(images.class_names) if images.num_classes > 1 else set(images.class_names) - UNLABELED


def _why_of_one_class(given: ImageSet, real: ImageSet) -> str:
    numbered = [images.class_names == tuple(map(str, range(images.num_classes))) for images in (given, real)]
    if min(given.num_classes, real.num_classes) > 1 and numbered[0] != numbered[1]:
        options = ("--images", "--against") if numbered[0] else ("--against", "--images")
        numbers, names = (given, real) if numbered[0] else (real, given)
        of_numbers = f"{options[0]} has numbers for its classes (0 to {numbers.num_classes - 1:,})"
        of_names = f"{options[1]} has names ({names.class_names[0]}, ...)"
        return f"{of_numbers}, {of_names}, and nothing says which is which: all images are of one class."
    for images, option in ((given, "--images"), (real, "--against")):
        if not _telling_names(images):
            return f"{option} has no classes: all images are of one."
    return "The two sets have no classes in common: all images are of one."


def _with_classes_of(given: ImageSet, real: ImageSet) -> ImageSet:
    """The same images with the labels that the real ones have for classes of these names."""
    present = {real.class_names[label] for label in real.labels.unique().tolist()}
    found = given.labels.unique(return_counts=True)
    for label, count in zip(*(each.tolist() for each in found), strict=True):
        name = given.class_names[label]
        if name not in present:
            raise UserError(f"--images has {count:,} images of class {name}, but --against has none of it.")
        if count < 2:
            raise UserError(f"--images has one image of class {name}, but diversity needs two or more of a class.")
    places = [real.class_names.index(name) if name in present else -1 for name in given.class_names]
    return replace(given, labels=torch.tensor(places)[given.labels], class_names=real.class_names)


def _of_one_class(images: ImageSet) -> ImageSet:
    return replace(images, labels=torch.zeros_like(images.labels), class_names=("all images",))
