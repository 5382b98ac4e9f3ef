"""The real images: what ``--data`` names, as one set of labeled images.

Tested in ``tests/engine/data/test_loading.py``.
"""

from dataclasses import replace

import torch
from torch import Tensor

from gan_blocks.engine.data.config import ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import ReadRequest
from gan_blocks.engine.data.sources import kind_of, parse_source, read_source

__all__ = ["load_images", "load_images_of", "with_mirror_images"]

_GIBIBYTE = 2**30


def load_images(
    spec: str, *, resolution: int, channels: int, num_classes: int | None, memory_limit: int = _GIBIBYTE
) -> ImageSet:
    """Load the images that ``--data`` names, all of one size and number of channels.

    Images are cropped to their center square along the long edge and resampled by area; smaller ones are enlarged by
    bicubic interpolation. The digits and garments of 28 x 28 pixels become 32 x 32 by a border of two pixels of
    background instead.

    Args:
        spec: A source of the table ``SOURCES``, such as ``mnist5k`` or ``folder:PATH``.
        resolution: Height and width wanted, at least 1.
        channels: 1 for gray or 3 for RGB.
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
    images = read_source(source, ReadRequest(PixelLayout(resolution, channels), num_classes, memory_limit))
    return _with_checked_classes(source, images, num_classes)


def load_images_of(config: ImageFields, data: str | None = None) -> ImageSet:
    """Load the images that a Config names, none of them mirrored, as its networks take them.

    Args:
        config: Names the data, and their size, channels and number of classes.
        data: Where they are, when they have moved; any other source of such images, too.

    Raises:
        UserError: As :func:`~gan_blocks.engine.load_images`.
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

    notes = (*images.notes, f"each of {len(images):,} images is shown as it is and mirrored")
    return replace(images, read_pixels=read_pixels, labels=images.labels.repeat(2), notes=notes)


def _with_checked_classes(source: DataSource, images: ImageSet, num_classes: int | None) -> ImageSet:
    """Refuse data that cannot train the networks, and note classes that are missing."""
    if len(images) < 2:
        raise source.error(f"the data holds {len(images)} image; training needs at least 2.")
    if num_classes == 1:
        return _as_one_class(images)
    counts = torch.bincount(images.labels, minlength=images.num_classes)
    if (counts > 0).sum() == 1:
        level = ": usually the path is one level off" if kind_of(source).one_level_off else ""
        raise source.error(f"all labels are equal{level}. To train on one class on purpose give --num-classes 1.")
    if num_classes is not None and images.num_classes > num_classes:
        raise source.error(
            f"the data has {images.num_classes:,} classes, but the networks have {num_classes:,}; "
            f"to train on them give --num-classes {images.num_classes}."
        )
    notes = list(images.notes)
    if empty := (counts == 0).nonzero().flatten().tolist():
        notes.append(
            f"{len(empty):,} of {images.num_classes:,} classes have no images, such as {images.class_names[empty[0]]}"
        )
    if num_classes is not None and images.num_classes < num_classes:
        notes.append(f"the networks have {num_classes:,} classes, the data {images.num_classes:,}")
    return replace(images, notes=tuple(notes))


def _as_one_class(images: ImageSet) -> ImageSet:
    if images.num_classes == 1:
        return images
    notes = (*images.notes, f"the {images.num_classes:,} classes of the data are taken as one")
    return replace(images, labels=torch.zeros_like(images.labels), class_names=("all images",), notes=notes)
