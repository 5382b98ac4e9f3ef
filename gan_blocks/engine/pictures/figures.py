"""Figures of measurements: matplotlib without a window.

matplotlib is imported when something is drawn: it would add a second to the start of every command.

Tested in ``tests/engine/training/test_spectra.py``.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from gan_blocks.engine.base.files import replace_durably

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure", "save_figure"]


def new_figure(width: float, height: float, *, dpi: int) -> "Figure":
    """An empty figure of so many inches, whose parts make room for each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(path: Path, figure: "Figure") -> None:
    """Write a PNG, whole or not at all.

    Raises:
        UserError: If it cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    replace_durably(path, picture.getvalue())
