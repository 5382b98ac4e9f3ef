"""Real images: the sources that ``--data`` names, and the sets of labeled images that they become."""

from gan_blocks.engine.data.image_set import class_name
from gan_blocks.engine.data.kinds.stacked import NUM_STACKS, stacked_numbers
from gan_blocks.engine.data.loading import load_images_of
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import ReadRequest, SourceKind
from gan_blocks.engine.data.sources import SOURCES

__all__ = [
    "NUM_STACKS",
    "SOURCES",
    "DataSource",
    "ReadRequest",
    "SourceKind",
    "class_name",
    "load_images_of",
    "stacked_numbers",
]
