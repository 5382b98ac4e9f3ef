"""Opening the image files of one's own disk with Pillow: nothing but the picture decides whether it is read.

Pillow's limits are made for servers that open what strangers send. Here a picture may have 1,000 megapixels, and 256
MiB of text beside its pixels; a PNG or JPEG whose text, color profile or the like is damaged is read without it.

Tested in ``tests/engine/data/test_opening.py``.
"""

import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, cast

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from gan_blocks.engine.base.contents import other_content
from gan_blocks.engine.data.bare_picture import bare_picture

__all__ = ["MOST_PIXELS", "image_suffixes", "open_image"]

MOST_PIXELS = 10**9
MOST_TEXT = 256 * 2**20

# EPS is drawn by Ghostscript, a program; IPTC may hold any other format inside.
_REFUSED = ("EPS", "IPTC")
_SILENCE = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

# Without a handler of somebody's, Python prints what Pillow logs of damaged files.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def image_suffixes() -> set[str]:
    """The suffixes of files that are opened, in small letters with their dot."""
    # The call also loads all of Pillow's readers, here and not in many threads at once.
    known = Image.registered_extensions()
    return {suffix for suffix, kind in known.items() if kind in Image.OPEN and kind not in _REFUSED}


@contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """Open a file, to be decoded within; Pillow's warnings are not shown meanwhile.

    Raises:
        ValueError: If the file cannot be a picture that is read here; the text says why in a few words.
        Exception: Whatever else Pillow's readers raise.
    """
    _check_file(path)
    with _LENIENCE, ExitStack() as stack:
        try:
            yield _opened(path, stack)
        except Image.DecompressionBombError:  # also of a picture inside, which comes out when it is decoded
            raise ValueError(f"shrink it below {MOST_PIXELS // 10**6:,} megapixels") from None
        except UnidentifiedImageError as error:
            what = other_content(path, "picture")
            raise error if what is None else ValueError(f"it {what}") from None


def _check_file(path: str) -> None:
    try:
        status = os.stat(path)  # noqa: PTH116 - paths of a million images are text
    except OSError:
        return  # opening it says more
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is no regular file")
    if status.st_size == 0:
        raise ValueError("it is empty")


def _opened(path: str, stack: ExitStack) -> Image.Image:
    try:
        return _readable(stack.enter_context(Image.open(path)))
    except (Image.DecompressionBombError, MemoryError):
        raise
    except Exception:
        if (pixels := bare_picture(path)) is not None:
            with suppress(Exception):  # what was wrong with the whole file says more
                return _readable(stack.enter_context(Image.open(pixels)))
        raise


def _readable(image: Image.Image) -> Image.Image:
    if image.format in _REFUSED:
        raise ValueError(f"{image.format} is not read: it can make other programs start")
    if image.format == "PNG":
        image.load()  # a part of its metadata comes after the pixels
    return image


class _Lenience:
    """Pillow with higher limits and without warnings, while any thread is within."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._change = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._change.enter_context(_lenient_pillow())
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._change.close()


@contextmanager
def _lenient_pillow() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow refuses what has twice as many
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MOST_TEXT
    # Not by filterwarnings, which would let what was shown once be shown again, nor by catch_warnings, which puts back
    # all filters, also those that another thread has set meanwhile.
    _filters().insert(0, _SILENCE)
    try:
        yield
    finally:
        with suppress(ValueError):
            _filters().remove(_SILENCE)
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = before


def _filters() -> list[Any]:
    return cast("list[Any]", warnings.filters)


_LENIENCE = _Lenience()
