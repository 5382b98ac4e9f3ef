"""Image sets from arrays that are in memory already.

Tested in ``tests/engine/data/test_arrays.py``.
"""

from collections import Counter
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gan_blocks.engine.base.parallel.threads import map_in_threads
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.pixels import ImageFacts, PixelLayout, conversion_notes, to_pixels

__all__ = ["LabeledArrays", "image_set_from_arrays"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class LabeledArrays(NamedTuple):
    """Images (uint8, number, height, width, 1 or 3 or 4 channels) with labels (int64, number) below the class count."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def image_set_from_arrays(arrays: LabeledArrays, layout: PixelLayout) -> ImageSet:
    """Bring all images to the layout, where they are not in it already, and keep them as uint8 in memory."""
    images = arrays.images
    count, height, width, channels = images.shape
    facts = ImageFacts(_MODES[channels], enlarged=min(height, width) < layout.resolution, cropped=height != width)
    if (channels, height, width) == layout.shape:
        # torch wants memory that it may write to, which the bytes of a file are not.
        pixels = np.require(images.transpose(0, 3, 1, 2), requirements=["C", "W"])
    else:
        pixels = np.empty((count, *layout.shape), np.uint8)
        converted = map_in_threads(partial(_to_pixels, layout=layout), list(images), description="resampling images")
        for row, result in zip(pixels, converted, strict=True):
            row[:] = result
    return ImageSet(
        read_pixels=partial(torch.index_select, torch.from_numpy(pixels), 0),
        labels=torch.from_numpy(arrays.labels),
        class_names=arrays.class_names,
        layout=layout,
        notes=(*arrays.notes, *conversion_notes(Counter({facts: count}), layout)),
    )


def _to_pixels(image: NDArray[np.uint8], layout: PixelLayout) -> NDArray[np.uint8]:
    return to_pixels(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), layout)
