import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from gan_blocks.engine.pictures.captions import caption_font, fitted


@given(text=st.text(max_size=60), width=st.integers(20, 300))
def test_a_caption_is_one_line_that_fits_and_whole_where_there_is_room(text: str, width: int):
    font, line = caption_font(10), " ".join(text.split())
    shown = fitted(text, font, width)
    assert font.getlength(shown) <= width
    if font.getlength(line) <= width:
        assert shown == line
    else:
        assert shown.endswith("…")
        assert line.startswith(shown[:-1])


@pytest.mark.parametrize("letter", ["ü", "é", "ж", "λ"])
def test_letters_beyond_ascii_are_drawn(letter: str):
    """A letter that the font lacks would look like any other that it lacks."""
    pictures = []
    for text in (letter, "\U0010fffd"):
        picture = Image.new("L", (20, 20), "white")
        ImageDraw.Draw(picture).text((2, 2), text, "black", caption_font(12))
        pictures.append(np.array(picture))
    assert not np.array_equal(*pictures)
