"""The picture at the top of the README: samples, a walk through latents and spectra, of the runs in the gallery.

``python docs/_strip.py`` puts it together again from pictures in docs/images; tested in ``tests/test_strip.py``.
"""

from pathlib import Path

from PIL import Image, ImageDraw

from gan_blocks.engine.pictures.captions import caption_font

IMAGES = Path(__file__).parent / "images"
CELL, GAP, HEAD, SIDE = 68, 16, 34, 408  # a sample with its margin; between panels; above them; how high they are
FRAMES = range(0, 40, 7)  # of the walk


def frames(name: str, *numbers: int) -> list[Image.Image]:
    """Of a picture that is no film, frame 0 is all that there is."""
    shown = []
    with Image.open(IMAGES / name) as picture:
        for number in numbers:
            picture.seek(number)
            shown.append(picture.convert("RGB"))
    return shown


def samples(name: str) -> Image.Image:
    """Six columns of six classes from the upper right of a sheet, past its captions."""
    (sheet,) = frames(name, 0)
    return sheet.crop((sheet.width - 6 * CELL - 2, 2, sheet.width - 2, 2 + SIDE))


def walk() -> Image.Image:
    """A row for each of the four digits of the film, a column for each of some frames."""
    rows, cell = Image.new("RGB", (SIDE // 4 * len(FRAMES), SIDE), "white"), SIDE // 4
    for column, shown in enumerate(frames("walk.gif", *FRAMES)):
        for row in range(4):
            left, top = 4 + row % 2 * 68, 4 + row // 2 * 68
            digit = shown.crop((left, top, left + 64, top + 64)).resize((cell - 6, cell - 6), Image.Resampling.BICUBIC)
            rows.paste(digit, (column * cell + 3, row * cell + 3))
    return rows


def spectra() -> Image.Image:
    """The largest singular values of G."""
    (figure,) = frames("spectra.png", 0)
    return figure.crop((0, 50, 556, 50 + SIDE))


def strip() -> Image.Image:
    panels = {
        "digits, 4 minutes on 2 cores": samples("demo_samples.png"),
        "clothes, 15 minutes": samples("biggan_fashion_mnist.png"),
        "a walk through z": walk(),
        "singular values of G's layers, 200 steps": spectra(),
    }
    width = sum(panel.width for panel in panels.values()) + GAP * (len(panels) - 1)
    picture = Image.new("RGB", (width, HEAD + SIDE), "white")
    draw, left = ImageDraw.Draw(picture), 0
    for title, panel in panels.items():
        picture.paste(panel, (left, HEAD))
        draw.text((left + panel.width / 2, HEAD / 2), title, fill="black", font=caption_font(22), anchor="mm")
        left += panel.width + GAP
    return picture.quantize(256)


if __name__ == "__main__":
    strip().save(IMAGES / "strip.png", optimize=True)
