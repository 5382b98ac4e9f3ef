"""A kind of data source: what the table ``SOURCES`` holds of each.

Tested in ``tests/engine/data/test_sources.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.kinds.folder_listing import FolderListing
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.source import DataSource

__all__ = ["DataShape", "ReadRequest", "SourceKind"]


class DataShape(NamedTuple):
    """What new networks take from the data where the user says nothing."""

    channels: Literal[1, 3]
    """1 for gray images, 3 where one is not gray."""
    num_classes: int


class ReadRequest(NamedTuple):
    """How images are wanted."""

    layout: PixelLayout
    """Resolution and channels."""
    num_classes: int | None = None
    """How many classes the labels may have; None: any number. 1: any, too, and there need be no labels."""
    memory_limit: int = 2**30
    """Bytes of pixels up to which images that lie in files are kept in memory."""


def _never(_path: str) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """A kind of source that ``--data`` can name: all that there is to know of it, for reading, errors, help and docs.

    A new kind is one of these in the file that reads it, and a line in ``SOURCES``; a recipe of your own may add one:
    ``SOURCES["mine"] = SourceKind(...)``.

    Attributes:
        name: The word before the colon.
        summary: What is read, in a few words.
        read: Reads the images. Raises UserError by :meth:`DataSource.error`; an OSError is worded for it.
        path: Whether a path follows: ``"none"``, ``"optional"`` or ``"required"``.
        recognizes: Whether a path that was given without a kind looks like this one.
        hint: Beginning of the sentence that then proposes it, such as ``"For a file of arrays"``.
        one_level_off: Whether a path one level too high or too low makes all labels equal.
        shape: Tells the channels and the classes, in less time than it takes to read all; its second argument is the
            number of classes that the networks have, if that is known.
        side: Tells the side of the (first) image, where the kind does not have one size that everybody wants.
        list_files: Lists the image files and their classes, where the source is one of files that can be decoded again.
    """

    name: str
    summary: str
    read: Callable[[DataSource, ReadRequest], ImageSet]
    path: Literal["none", "optional", "required"] = "required"
    recognizes: Callable[[str], bool] = _never
    hint: str = ""
    one_level_off: bool = False
    shape: Callable[[DataSource, int | None], DataShape] | None = None
    side: Callable[[DataSource], int] | None = None
    list_files: Callable[[DataSource], FolderListing] | None = None

    def spellings(self) -> list[str]:
        """The forms of ``--data`` that name it."""
        return [
            *([] if self.path == "required" else [self.name]),
            *([] if self.path == "none" else [f"{self.name}:PATH"]),
        ]
