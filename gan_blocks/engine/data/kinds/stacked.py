"""Stacked MNIST: three digits in the three color channels of an image, which make a number from 0 to 999.

Tested in ``tests/recipes/test_stacked_mnist.py``.
"""

import torch
from einops import rearrange
from torch import Tensor

from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.data.arrays import image_set_from_arrays
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.kinds.digits import read_mnist5k
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import DataShape, ReadRequest, SourceKind

__all__ = ["NUM_STACKS", "STACKED_MNIST5K", "read_stacked_mnist5k", "stacked_numbers"]

NUM_STACKS = 51_200
"""Images of ``stacked-mnist5k``: twice the samples of the mode test."""


def read_stacked_mnist5k(source: DataSource, layout: PixelLayout) -> ImageSet:
    """Stack three random digits of ``mnist5k``; which three is a function of the image's number alone.

    The digits are in memory once, and a stack is put together when it is read. All 1,000 numbers are equally probable.

    Raises:
        UserError: If the layout is not one of three channels, or the digits are missing.
    """
    if layout.channels != 3:
        raise source.error(f"stacks have three channels, one a digit: --image-channels 3, not {layout.channels}.")
    gray = PixelLayout(layout.resolution, channels=1)
    digits = image_set_from_arrays(read_mnist5k(source, gray), gray)
    shape = (NUM_STACKS, 3)
    chosen = torch.randint(len(digits), shape, generator=random_stream(0, "stacked-mnist5k"))

    def read_pixels(indices: Tensor) -> Tensor:
        pixels = digits.read_pixels(chosen.index_select(0, indices).flatten())
        return rearrange(pixels, "(stack channel) 1 h w -> stack channel h w", channel=3)

    names = tuple(f"{number:03d}" for number in range(1000))
    return ImageSet(read_pixels, stacked_numbers(digits.labels[chosen]), names, layout, digits.notes)


def stacked_numbers(digits: Tensor) -> Tensor:
    """The numbers that digits make, the first channel's being the hundreds.

    Shape:
        - digits: ``(stacks, 3)``, int64
        - returns: ``(stacks,)``
    """
    return (digits * torch.tensor([100, 10, 1])).sum(dim=1)


def _read(source: DataSource, request: ReadRequest) -> ImageSet:
    return read_stacked_mnist5k(source, request.layout)


STACKED_MNIST5K = SourceKind(
    name="stacked-mnist5k",
    summary="51,200 RGB images of three of these digits, one a channel, drawn at random once and for all",
    read=_read,
    shape=lambda _source, _num_classes: DataShape(3, 1000),
    path="none",
)
