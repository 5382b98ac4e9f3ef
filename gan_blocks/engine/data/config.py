"""The fields of a Config that say which images are learned.

Tested in ``tests/engine/data/test_sources.py``.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from gan_blocks.engine.base.checks import Fields, require, require_positive
from gan_blocks.engine.base.terminal.help_page import hint
from gan_blocks.engine.data.sources import source_choices

__all__ = ["DataOption", "ImageFields"]

DataOption = Annotated[str, hint(lambda: f"{source_choices()}.")]
"""The type of ``--data``, whose help lists the sources."""


@dataclass(frozen=True)
class ImageFields(Fields):
    """The images to learn."""

    help_group: ClassVar[str] = "data"

    data: DataOption = "mnist5k"
    """Training images: a source (and its path):"""
    resolution: int = 32
    """Height and width of the images in pixels."""
    image_channels: Literal[1, 3] = 1
    """1 for gray images, 3 for RGB; default of a new run: those of its data."""
    num_classes: int = 10
    """Classes; default of a new run: those of its data. 1: all images are one class.

    Labels run from 0 to this less one.
    """
    mirror: bool = False
    """Train on mirrored images, too: twice the data."""
    hold_out: float = 0.0
    """Share of the images held out from the training.

    It tells whether D remembers images, and how good a score can be.
    """

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "num_classes")
        require(self, "hold_out", 0 <= self.hold_out < 1, "at least 0 and less than 1")
