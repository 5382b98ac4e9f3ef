"""Text in pictures: a font with the letters of many alphabets, and captions cut to the room that there is.

Tested in ``tests/engine/pictures/test_captions.py``.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

__all__ = ["Font", "caption_font", "fitted"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def caption_font(size: int) -> Font:
    """The font that matplotlib brings; where there is none, pillow's own, which has but ASCII."""
    found = find_spec("matplotlib")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def fitted(text: str, font: Font, width: float) -> str:
    """The text in one line, cut to a width in pixels; dots stand for what is cut."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept and font.getlength(text[:kept].rstrip() + "…") > width:
        kept -= 1
    return text[:kept].rstrip() + "…"
