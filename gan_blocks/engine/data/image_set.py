"""Labeled images that are read by number.

Tested in ``tests/engine/data/test_loading.py``.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from gan_blocks.engine.data.pixels import PixelLayout

__all__ = ["ImageSet", "class_name", "digest_of_files"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images of one size, in memory or read from their files when asked for.

    Attributes:
        read_pixels: Returns the uint8 pixels of the images whose numbers an int64 tensor holds.
        labels: The class of every image, int64, on the CPU.
        class_names: One name a class; a class may have no images, which the notes then say.
        layout: Resolution and channels.
        notes: What a user should know about the loading, a line each: conversions, skipped files.
        files: A digest of the names and sizes of the files that it was read from, where there is one an image or so.
    """

    read_pixels: Callable[[Tensor], Tensor]
    labels: Tensor
    class_names: tuple[str, ...]
    layout: PixelLayout
    notes: tuple[str, ...] = ()
    files: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes of the data; the labels are below it."""
        return len(self.class_names)

    @property
    def resolution(self) -> int:
        """Height and width of every image."""
        return self.layout.resolution

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB."""
        return self.layout.channels

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and labels in the order of the indices, which may repeat; safe to call from any thread.

        Args:
            indices: int64 numbers of images, from 0 to ``len(self) - 1``, on the CPU.

        Returns:
            The float32 images in [-1, 1] (level 0 is exactly -1, 255 exactly 1) and their int64 labels, on the CPU.

        Shape:
            - indices: ``(batch,)``
            - returns: ``(batch, channels, resolution, resolution)`` and ``(batch,)``

        Raises:
            IndexError: If an index is out of range.
            UserError: If a file that was whole at the start cannot be read any more.
        """
        labels = self.labels.index_select(0, indices)
        return self.read_pixels(indices).float().div_(127.5).sub_(1), labels


def class_name(names: Sequence[str], label: int) -> str:
    """What to call a class: networks may have more classes than there are names, which have numbers alone."""
    return names[label] if label < len(names) else str(label)


def digest_of_files(files: Iterable[tuple[str, object]]) -> str:
    """A digest of the names of files, each beside what else is known of it, such as its size; in hexadecimal.

    Example:
        >>> digest_of_files([("a.png", 120), ("b.png", 95)])
        '080925b5e10411cf'
    """
    digest = hashlib.sha256()
    for name, known in files:
        digest.update(os.fsencode(f"{name}\0{known}\n"))
    return digest.hexdigest()[:16]
