"""The real images: what ``--data`` names, as one set of labelled images.

Tested in ``tests/recipes/test_data.py``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from recipes._engine.cifar10_source import read_cifar10
from recipes._engine.data_source import DataSource, parse_source
from recipes._engine.digit_sources import read_fashion_mnist, read_mnist5k
from recipes._engine.errors import UserError
from recipes._engine.image_arrays import LabelledArrays, image_set_from_arrays
from recipes._engine.image_files import PixelLayout
from recipes._engine.image_folder import load_folder
from recipes._engine.image_set import ImageSet
from recipes._engine.npz_source import read_npz
from recipes._engine.random_streams import random_stream
from recipes._engine.recipe import RecipeConfig
from recipes._engine.shard_reader import load_shards
from recipes._engine.stacked_source import read_stacked_mnist5k

__all__ = [
    "HeldOutSplit",
    "ImageSet",
    "held_out_split",
    "load_images",
    "load_images_of",
    "read_source",
    "with_mirror_images",
]

_GIBIBYTE = 2**30


def load_images(
    spec: str, *, resolution: int, channels: int, num_classes: int | None, memory_limit: int = _GIBIBYTE
) -> ImageSet:
    """Load the images that ``--data`` names, all of one size and number of channels.

    Images are cropped to their centre square along the long edge and resampled by area; smaller ones are enlarged by
    bicubic interpolation. The digits and garments of 28 x 28 pixels become 32 x 32 by a border of two pixels of
    background instead.

    Args:
        spec: ``mnist5k``, ``stacked-mnist5k``, ``fashion-mnist``, ``fashion-mnist:PATH``, ``npz:PATH``,
            ``folder:PATH``, ``shards:PATH`` or ``cifar10:PATH``.
        resolution: Height and width wanted, at least 1.
        channels: 1 for grey or 3 for RGB.
        num_classes: How many classes the networks have; the data may have fewer, but not more. None accepts any
            number. One class is accepted only if 1 is asked for, because equal labels usually are a mistake; 1 is for
            networks without classes, too, and takes those of the data as one.
        memory_limit: Bytes of pixels up to which a folder is kept in memory; larger ones are read batch by batch.

    Returns:
        The images; its notes say what was converted, enlarged or skipped.

    Raises:
        UserError: If the source is unknown, missing or damaged, or does not fit ``num_classes``.

    References:
        Brock et al. 2018, Appendix C: crop along the long edge, rescale by area resampling.
    """
    source = parse_source(spec)
    if channels not in (1, 3) or resolution < 1:
        raise source.error(
            f"images have 1 or 3 channels and a resolution of at least 1, not {channels=}, {resolution=}."
        )
    images = read_source(source, PixelLayout(resolution, channels), num_classes=num_classes, memory_limit=memory_limit)
    return _with_checked_classes(source, images, num_classes)


def read_source(
    source: DataSource, layout: PixelLayout, *, num_classes: int | None = None, memory_limit: int = _GIBIBYTE
) -> ImageSet:
    """Read a source without asking whether its classes suit any network; see :func:`load_images`.

    Raises:
        UserError: If it is missing or damaged.
    """
    try:
        if source.name == "folder":
            return load_folder(source, layout, memory_limit=memory_limit)
        if source.name == "shards":
            return load_shards(source, layout)
        if source.name == "stacked-mnist5k":
            return read_stacked_mnist5k(source, layout)
        return image_set_from_arrays(_read_arrays(source, layout, None if num_classes == 1 else num_classes), layout)
    except OSError as error:
        # Whatever else the file system refuses, such as a folder without permission to list it.
        raise source.error(f"cannot be read: {error}.") from error


def load_images_of(config: RecipeConfig, data: str | None = None) -> ImageSet:
    """Load the images that a Config names, none of them mirrored, as its networks take them.

    Args:
        config: Names the data, and their size, channels and number of classes.
        data: Where they are, when they have moved; any other source of such images, too.

    Raises:
        UserError: As :func:`load_images`.
    """
    return load_images(
        data or config.data,
        resolution=config.resolution,
        channels=config.image_channels,
        num_classes=config.num_classes,
    )


def with_mirror_images(images: ImageSet) -> ImageSet:
    """Double a set by the mirror image of each image, left to right; they follow the originals in the same order."""

    def read_pixels(indices: Tensor) -> Tensor:
        pixels = images.read_pixels(indices % len(images))
        mirrored = (indices >= len(images))[:, None, None, None]
        return torch.where(mirrored, pixels.flip(-1), pixels)

    notes = (*images.notes, "each image is shown as it is and mirrored")
    return ImageSet(read_pixels, images.labels.repeat(2), images.class_names, images.layout, notes)


class HeldOutSplit(NamedTuple):
    """Two sets of image numbers that share none, both sorted."""

    kept: Tensor
    held_out: Tensor


def held_out_split(images: ImageSet, fraction: float, seed: int) -> HeldOutSplit:
    """Set aside the same fraction of every class, chosen at random as a function of the seed alone.

    Args:
        images: The images.
        fraction: Part of each class to hold out, at least 0 and less than 1; rounded to whole images, halves up,
            but one image of a class is always kept.
        seed: The seed.

    Returns:
        The int64 numbers of the images to keep and of those held out.

    Raises:
        UserError: If the fraction is out of range.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"the fraction of images to hold out must be at least 0 and less than 1, but got {fraction}.")
    held_out = torch.zeros(len(images), dtype=torch.bool)
    counts = torch.bincount(images.labels, minlength=images.num_classes).tolist()
    for label, members in enumerate(torch.split(images.labels.argsort(stable=True), counts)):
        order = torch.randperm(len(members), generator=random_stream(seed, "held out", label))
        count = max(min(int(fraction * len(members) + 0.5), len(members) - 1), 0)
        held_out[members[order[:count]]] = True
    return HeldOutSplit((~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1))


def _read_arrays(source: DataSource, layout: PixelLayout, num_classes: int | None) -> LabelledArrays:
    match source.name:
        case "mnist5k":
            return read_mnist5k(source, layout)
        case "fashion-mnist":
            return read_fashion_mnist(source, layout)
        case "cifar10":
            return read_cifar10(source)
        case _:
            return read_npz(source, num_classes=num_classes)


def _with_checked_classes(source: DataSource, images: ImageSet, num_classes: int | None) -> ImageSet:
    """Refuse data that cannot train the networks, and note classes that are missing."""
    if len(images) < 2:
        raise source.error(f"the data holds {len(images)} image; training needs at least 2.")
    if num_classes == 1:
        return _as_one_class(images)
    counts = torch.bincount(images.labels, minlength=images.num_classes)
    if (counts > 0).sum() == 1:
        level = ": usually the path is one level off" if source.name == "folder" else ""
        raise source.error(f"all labels are equal{level}. For data of one class on purpose give --num-classes 1.")
    if num_classes is not None and images.num_classes > num_classes:
        raise source.error(
            f"the data has {images.num_classes:,} classes, but --num-classes is {num_classes:,}; "
            f"make it {images.num_classes:,}."
        )
    notes = list(images.notes)
    if empty := (counts == 0).nonzero().flatten().tolist():
        notes.append(
            f"{len(empty):,} of {images.num_classes:,} classes have no images, such as {images.class_names[empty[0]]}"
        )
    if num_classes is not None and images.num_classes < num_classes:
        notes.append(f"the networks have {num_classes:,} classes, the data {images.num_classes:,}")
    return ImageSet(images.read_pixels, images.labels, images.class_names, images.layout, tuple(notes))


def _as_one_class(images: ImageSet) -> ImageSet:
    if images.num_classes == 1:
        return images
    notes = (*images.notes, f"the {images.num_classes:,} classes of the data are taken as one")
    return ImageSet(images.read_pixels, torch.zeros_like(images.labels), ("all images",), images.layout, notes)
