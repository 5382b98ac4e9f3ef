"""From one image of any size and mode to the pixels that a network is trained on.

Tested in ``tests/engine/data/test_pixels.py``.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from gan_blocks.engine.data.opening import open_image
from gan_blocks.engine.data.resampling import area_resample_planes

__all__ = [
    "GRAY_MODES",
    "DamagedImageError",
    "ImageFacts",
    "PixelLayout",
    "conversion_notes",
    "convert_file",
    "inspect_file",
    "read_file",
    "to_mode",
    "to_pixels",
]

_Result = TypeVar("_Result")

_TRANSPARENT = {
    "LA": "gray with transparency",
    "PA": "palette with transparency",
    "RGBA": "RGB with transparency",
    "RGBa": "RGB with transparency",
}
_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N")
GRAY_MODES = frozenset({"1", "L", "LA", "La", "F", *_SIXTEEN_BIT})
"""Pillow's names of pixels without color."""
_MODE_NAMES = {"1": "black-and-white", "L": "gray", "P": "palette"}
_MODE_NAMES |= _TRANSPARENT | dict.fromkeys(_SIXTEEN_BIT, "16-bit gray")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DamagedImageError(Exception):
    """An image file that cannot be decoded; the text says why in a few words."""


class PixelLayout(NamedTuple):
    """What the network expects: square images of ``resolution`` pixels a side, in 1 (gray) or 3 (RGB) channels."""

    resolution: int
    channels: int

    @property
    def mode(self) -> str:
        """Pillow's name of the channels."""
        return "L" if self.channels == 1 else "RGB"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.resolution, self.resolution


class ImageFacts(NamedTuple):
    """What the notes count about a source image: its Pillow mode, and whether it was enlarged, turned or cropped."""

    mode: str
    enlarged: bool
    turned: bool = False
    cropped: bool | None = False
    """None: not known, of a store that an earlier version began."""


def to_pixels(image: Image.Image, layout: PixelLayout) -> NDArray[np.uint8]:
    """Convert, crop to the center square and resample one decoded image.

    The longer edge is cropped equally on both sides (one pixel less at the start where the excess is odd); a larger
    square is resampled by area, a smaller one enlarged by bicubic interpolation. Transparent pixels are laid over
    white, and 16-bit gray is divided by 257. Pillow's own conversions would show what a transparent pixel hides, and
    clip 16 bits to 8.

    Args:
        image: Decoded image of any mode that Pillow converts to RGB, or 16-bit gray.
        layout: Resolution and channels.

    Returns:
        The pixels, 0 to 255.

    Shape:
        - returns: ``(channels, resolution, resolution)``

    Raises:
        ValueError: If Pillow cannot convert the mode, or gray levels do not fit into 16 bits.
    """
    square = _center_square(to_mode(image, layout.mode))
    if square.width < layout.resolution:
        square = square.resize((layout.resolution, layout.resolution), Image.Resampling.BICUBIC)
    planes = _planes(square)
    return area_resample_planes(planes, layout.resolution) if square.width > layout.resolution else planes


def read_file(path: str, layout: PixelLayout) -> tuple[NDArray[np.uint8], ImageFacts]:
    """Decode a file, turn it upright if its EXIF orientation says so, and bring it to the layout.

    Raises:
        DamagedImageError: If the file cannot be decoded to its end.
    """
    return convert_file(path, layout, partial(to_pixels, layout=layout))


def convert_file(
    path: str, layout: PixelLayout, convert: Callable[[Image.Image], _Result]
) -> tuple[_Result, ImageFacts]:
    """Decode a file, turn it upright if its EXIF orientation says so, and apply a function to it.

    Of an animation or a file of several pages the first is read. The facts are those of a conversion to the layout.

    Raises:
        DamagedImageError: If the file cannot be decoded to its end, or ``convert`` fails.
    """
    try:
        with open_image(path) as image:
            image.load()
            turn = _turn(image)
            facts = _facts(image, layout, turned=turn is not None)
            return convert(image if turn is None else image.transpose(turn)), facts
    except Exception as error:
        raise _damaged(error) from error


def inspect_file(path: str, layout: PixelLayout) -> ImageFacts:
    """Find out whether ``read_file`` would succeed, for less time: JPEG streams are read to the end but at 1/8 size.

    Raises:
        DamagedImageError: If the file cannot be decoded to its end.
    """
    try:
        with open_image(path) as image:
            facts = _facts(image, layout, turned=_turn(image) is not None)
            image.draft(image.mode, (max(image.width // 8, 1), max(image.height // 8, 1)))
            to_mode(image, layout.mode)
            return facts
    except Exception as error:
        raise _damaged(error) from error


def conversion_notes(counts: Counter[ImageFacts], layout: PixelLayout) -> list[str]:
    """Say in at most one line each how many images were converted, enlarged, turned and cropped."""
    total = counts.total()
    modes: Counter[str] = Counter()
    for fact, count in counts.items():
        if fact.mode != layout.mode:
            modes[_MODE_NAMES.get(fact.mode, fact.mode)] += count
    notes = []
    if modes:
        kinds = ", ".join(f"{count:,} {name}" for name, count in modes.most_common())
        over_white = " (transparent pixels over white)" if modes.keys() & set(_TRANSPARENT.values()) else ""
        kind = "gray" if layout.channels == 1 else "RGB"
        notes.append(f"converted {modes.total():,} of {total:,} images to {kind}{over_white}: {kinds}")
    if enlarged := sum(count for fact, count in counts.items() if fact.enlarged):
        size = f"{layout.resolution} x {layout.resolution}"
        notes.append(f"enlarged {enlarged:,} of {total:,} images to {size} by bicubic interpolation")
    if turned := sum(count for fact, count in counts.items() if fact.turned):
        notes.append(f"turned {turned:,} of {total:,} images upright, as their EXIF orientation says")
    known = all(fact.cropped is not None for fact in counts)
    if known and (cropped := sum(count for fact, count in counts.items() if fact.cropped)):
        notes.append(f"cropped {cropped:,} of {total:,} images to the square in their middle")
    return notes


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert to gray ("L") or color ("RGB"), with transparent pixels over white and 16 bits divided by 257.

    Raises:
        ValueError: If Pillow cannot convert the mode, or gray levels do not fit into 16 bits.
    """
    image.load()
    if image.mode == "F":
        raise ValueError("floating-point gray has no fixed range")
    if image.mode in _SIXTEEN_BIT:
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("gray levels do not fit into 16 bits")
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def _planes(image: Image.Image) -> NDArray[np.uint8]:
    """The channels one after the other, as Pillow unpacks its own pixels."""
    bands = [np.frombuffer(image.tobytes("raw", band), np.uint8) for band in image.getbands()]
    return np.stack(bands).reshape(len(bands), image.height, image.width)


def _center_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image if image.width == image.height else image.crop((left, top, left + side, top + side))


def _facts(image: Image.Image, layout: PixelLayout, *, turned: bool) -> ImageFacts:
    mode = image.mode
    if "transparency" in image.info:
        mode = {"L": "LA", "P": "PA", "RGB": "RGBA"}.get(mode, mode)
    return ImageFacts(mode, min(image.size) < layout.resolution, turned, image.width != image.height)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # metadata that makes no sense does not decide whether a picture is read
        return None


def _damaged(error: Exception) -> DamagedImageError:
    # Pillow's readers raise a dozen kinds of exceptions for bytes that make no sense, SyntaxError and struct.error
    # among them; running out of memory is no property of the file.
    if isinstance(error, MemoryError):
        raise error
    text = str(error).splitlines()
    return DamagedImageError(text[0] if text else type(error).__name__)
