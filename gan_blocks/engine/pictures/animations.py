"""Films without a video codec: GIF, which everything shows, and animated PNG, which loses nothing.

Tested in ``tests/engine/pictures/test_animations.py``.
"""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably

__all__ = ["SUFFIXES", "check_frames_per_second", "save_animation"]

SUFFIXES = {".gif": "GIF", ".apng": "PNG"}


def check_frames_per_second(fps: float) -> None:
    """Check an ``--fps`` option.

    Raises:
        UserError: If it is not between 1 and 50: a GIF counts in hundredths of a second, and many programs show a
            frame of less than two of them for ten instead.
    """
    if not 1 <= fps <= 50:
        raise UserError(f"--fps must lie in 1 to 50, but got {fps:g}.")


def save_animation(path: Path, frames: Sequence[Image.Image], *, fps: float) -> None:
    """Write a film that repeats for ever, in the format that the suffix names.

    A GIF has 256 colors a frame, which are all levels of gray; RGB images are quantized, frame by frame. An animated
    PNG keeps every pixel. Both formats store a frame that equals the one before as a longer time of that one.

    Args:
        path: Where to; it must end in ``.gif`` or ``.apng``. It appears whole or not at all.
        frames: The frames in the order of time, all of one size and mode; at least one.
        fps: Frames a second, from 1 to 50. A GIF rounds the time of a frame to a hundredth of a second.

    Raises:
        UserError: If it cannot be written.
    """
    film = io.BytesIO()
    milliseconds = 1000 / fps
    if path.suffix.lower() == ".gif":
        milliseconds = round(milliseconds / 10) * 10  # which pillow would round down
    first, *others = frames
    first.save(
        film, format=SUFFIXES[path.suffix.lower()], save_all=True, append_images=others, duration=milliseconds, loop=0
    )
    replace_durably(path, film.getvalue())
