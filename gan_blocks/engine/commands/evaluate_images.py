"""The images of ``gan-blocks evaluate --images A --against B``, brought to one size and one set of classes.

Tested in ``tests/engine/commands/test_evaluate_images.py``.
"""

from dataclasses import replace
from typing import NamedTuple

import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.config import ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import DataShape, ReadRequest
from gan_blocks.engine.data.sources import read_source, recognized, shape_of_source, side_of_source

__all__ = ["GivenImages", "load_given_images"]


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
    labeled = min(shape.num_classes for shape in shapes) > 1
    request = ReadRequest(layout, None if labeled else 1)
    given, real = (read_source(source, request) for source in sources)
    notes = [
        f"{source.option}: {note}" for source, read in zip(sources, (given, real), strict=True) for note in read.notes
    ]
    notes += _converted(sources, shapes, sides, layout)
    if labeled and set(given.class_names) & set(real.class_names):
        given = _with_classes_of(given, real)
    else:
        if max(shape.num_classes for shape in shapes) > 1:
            notes.append("The two sets have no classes in common: all images are of one.")
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


def _shape(source: DataSource) -> DataShape:
    """Channels and classes; one class where labels cannot be had."""
    try:
        found = shape_of_source(source, None)
    except UserError:  # a folder without sub-folders, arrays without labels, or what is really wrong with it
        found = shape_of_source(source, 1)
        return DataShape(found.channels if found is not None else 3, 1)
    return found or DataShape(3, 2)


def _converted(sources: list[DataSource], shapes: list[DataShape], sides: list[int], layout: PixelLayout) -> list[str]:
    """What becomes of images that differ from the common layout; the readers tell of those that are enlarged."""
    notes = []
    for source, shape, side in zip(sources, shapes, sides, strict=True):
        if side > layout.resolution:
            size = f"{layout.resolution} x {layout.resolution}"
            notes.append(f"{source.option}: images of {side} x {side} pixels are brought to {size} by area.")
        if shape.channels < layout.channels:
            notes.append(f"{source.option}: gray images are compared as RGB, since the others are in color.")
    return notes


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
