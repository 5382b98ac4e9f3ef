"""PNG and JPEG files without their metadata, for those that Pillow refuses because of it.

Tested in ``tests/engine/data/test_opening.py``.
"""

import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

__all__ = ["bare_picture"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# What makes the picture, and how it is turned.
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
_EXIF, _SCAN = 0xE1, 0xDA
_COLORS = {0xE0: 16, 0xEE: 14}  # JFIF and Adobe tell how colors are stored, where they are as long as this
_METADATA = {*range(0xE0, 0xF0), 0xFE}


def bare_picture(path: str) -> BytesIO | None:
    """The part of a PNG or JPEG file that makes the picture, and its orientation; None where the file is neither."""
    with Path(path).open("rb") as file:
        start = file.read(len(_PNG))
        if start != _PNG and not start.startswith(_JPEG):
            return None
        data = start + file.read()
    parts = _png_parts(data) if start == _PNG else _jpeg_parts(data)
    return BytesIO(b"".join(parts))


def _png_parts(data: bytes) -> Iterator[bytes]:
    place = len(_PNG)
    yield data[:place]
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        chunk, name = data[place:end], data[place + 4 : place + 8]
        if name in _PNG_CHUNKS and (name != b"eXIf" or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])):
            yield chunk
        place = end


def _jpeg_parts(data: bytes) -> Iterator[bytes]:
    place = len(_JPEG)
    yield data[:place]
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != bytes([_SCAN]):
        length = int.from_bytes(data[place + 2 : place + 4])
        kind = int.from_bytes(data[place + 1 : place + 2])
        if kind == _EXIF or kind not in _METADATA or length >= _COLORS.get(kind, len(data)):
            yield data[place : place + 2 + length]
        place += 2 + length
    yield data[place:]
