"""The fields of a Config that say which images are learned.

Tested in ``tests/engine/data/test_sources.py``.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from gan_blocks.engine.base.checks import Fields, require_positive
from gan_blocks.engine.data.sources import source_choices

__all__ = ["DataOption", "ImageFields"]

DataOption = Annotated[
    str, tyro.conf.arg(help_behavior_hint=lambda default: f"(one of {source_choices()}; default: {default})")
]
"""The type of ``--data``, whose help lists the sources."""


@dataclass(frozen=True)
class ImageFields(Fields):
    """The images to learn."""

    help_group: ClassVar[str] = "data"

    data: DataOption = "mnist5k"
    """Training images: the name of a source, with the path that most sources need."""
    resolution: int = 32
    """Height and width of the images in pixels: 4 doubled once per stage of the generator."""
    image_channels: Literal[1, 3] = 1
    """1 for gray images, 3 for RGB."""
    num_classes: int = 10
    """Number of classes; labels run from 0 to this less one. 1: the classes of the data are taken as one."""
    mirror: bool = False
    """Show each real image as it is and mirrored, left to right, which doubles the data."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "num_classes")
