"""Pictures of tensors: sheets, captions, films, figures."""

from gan_blocks.engine.pictures.figures import new_figure, save_figure
from gan_blocks.engine.pictures.sheets import save_sheet

__all__ = [
    "new_figure",
    "save_figure",
    "save_sheet",
]
