"""Images that are read in batches, so that what compares them need not hold them all.

The classes here are `Rows` of images in [-1, 1], ``(images, channels, height, width)``; so is a tensor of images.

Tested in ``tests/engine/evaluation/test_image_rows.py``.
"""

import math
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from gan_blocks import Rows
from gan_blocks.engine.base.files import writing
from gan_blocks.engine.data.image_set import ImageSet

__all__ = ["RealImages", "SelectedImages", "StoredImages", "in_batches"]


def in_batches(images: Rows, size: int) -> Iterator[Tensor]:
    """All images in their order, ``size`` at a time."""
    return (images[numbers] for numbers in torch.arange(len(images)).split(size))


class _OnCpu:
    """What all kinds below have in common."""

    shape: torch.Size
    device = torch.device("cpu")

    def __len__(self) -> int:
        return self.shape[0]


class RealImages(_OnCpu):
    """The images of a data set, from where they are kept: as bytes, or in their files."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.shape = torch.Size((len(images), *images.layout.shape))

    def __getitem__(self, numbers: Tensor, /) -> Tensor:
        return self.images.batch(numbers)[0]


@dataclass(frozen=True, eq=False)
class SelectedImages:
    """Those of other images that have the ``numbers``, in the order of these."""

    images: Rows
    numbers: Tensor

    @property
    def shape(self) -> torch.Size:
        """``(images, channels, height, width)``."""
        return torch.Size((len(self.numbers), *self.images.shape[1:]))

    @property
    def device(self) -> torch.device:
        """Where the images that are read lie."""
        return self.images.device

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, numbers: Tensor, /) -> Tensor:
        return self.images[self.numbers[numbers]]


class StoredImages(_OnCpu):
    """Images in a temporary file, each float32 as it was: for more than memory should hold.

    Args:
        shape: Of all, ``(images, channels, height, width)``.
        batches: Numbers and images, until every number has had its image.

    Raises:
        UserError: If the disk of the temporary folder has no room for them.
    """

    _file: BufferedRandom | BufferedReader
    _bytes: int  # of each
    _start = 0  # of the first in the file

    def __init__(self, shape: tuple[int, ...], batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.shape = torch.Size(shape)
        self._bytes = 4 * math.prod(shape[1:])
        with writing(Path(tempfile.gettempdir()) / "samples", needed=shape[0] * self._bytes):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
            weakref.finalize(self, self._file.close)
            for numbers, images in batches:
                for number, image in zip(numbers.tolist(), images.float().contiguous(), strict=True):
                    self._file.seek(number * self._bytes)
                    self._file.write(image.numpy())
            self._file.flush()

    def __getitem__(self, numbers: Tensor, /) -> Tensor:
        images = torch.empty(len(numbers), *self.shape[1:])
        for number, image in zip(numbers.tolist(), images, strict=True):
            self._file.seek(self._start + number * self._bytes)
            self._file.readinto(image.numpy())
        return images
