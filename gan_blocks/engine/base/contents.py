"""What a file is in truth: what lies where a picture, arrays or weights should, for whoever cannot read it.

Tested in ``tests/engine/base/test_contents.py``.
"""

import codecs
import os
import stat
from pathlib import Path

from gan_blocks.engine.base.errors import UserError

__all__ = ["HDF5", "ZIP", "check_regular", "first_bytes", "is_special", "other_content"]

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK"
_LOOKED_AT = 1024

# By the first bytes; the first that fits. Each is the end of a sentence whose subject is the file.
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "is a Git LFS pointer, not the file itself: git lfs pull fetches it"),
    (b"/annex/objects/", "is a git-annex pointer, not the file itself: git annex get fetches it"),
    (HDF5, "is an HDF5 file"),
    (ZIP, "is a zip archive"),
    (b"\x1f\x8b", "is compressed by gzip: unpack it"),
    (b"BZh", "is compressed by bzip2: unpack it"),
    (b"\xfd7zXZ\0", "is compressed by xz: unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it"),
    (b"Rar!", "is a RAR archive: unpack it"),
    (b"\x93NUMPY", "is a single array of numpy.save (.npy)"),
    (b"PAR1", "is a Parquet file"),
    (b"%PDF", "is a PDF document"),
    (b"\x89PNG\r\n\x1a\n", "is a PNG picture"),
    (b"\xff\xd8\xff", "is a JPEG picture"),
    (b"GIF8", "is a GIF picture"),
    (b"\x80\x02", "is a Python pickle"),
    (b"\x80\x03", "is a Python pickle"),
    (b"\x80\x04", "is a Python pickle"),
    (b"\x80\x05", "is a Python pickle"),
)
_TAR = slice(257, 262)


def is_special(path: str | Path) -> bool:
    """Whether there is a named pipe, a socket or a device: reading it may wait for ever, or never end."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - paths of a million images are text
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_regular(path: Path, option: str = "") -> None:
    """Refuse a named pipe, a socket or a device.

    Raises:
        UserError: It is named, with the option that it was given to.
    """
    if is_special(path):
        raise UserError(f"{option} {path} is no regular file.".lstrip())


def other_content(path: str | Path, *expected: str) -> str | None:
    """What a file is that cannot be read as what it should be.

    Args:
        path: The file.
        expected: Words of the kinds that it should be of, such as ``"picture"``; it is a damaged one, then.

    Returns:
        The end of a sentence whose subject is the file; None where nothing is known.
    """
    try:
        found = _kind(first_bytes(path))
    except OSError:
        return None
    return None if found is None or any(word in found for word in expected) else found


def _kind(data: bytes) -> str | None:
    if not data:
        return "is empty"
    found = next((words for beginning, words in _BEGINNINGS if data.startswith(beginning)), None)
    if found is not None:
        return found
    if data[_TAR] == b"ustar":
        return "is a tar archive: unpack it"
    if not data.strip(b"\0"):
        return "begins with nothing but zero bytes: a copy or download was cut off"
    return _kind_of_text(data)


def first_bytes(path: str | Path) -> bytes:
    """The beginning of a file.

    Raises:
        OSError: If it cannot be read.
    """
    with Path(path).open("rb") as file:
        return file.read(_LOOKED_AT)


def _kind_of_text(data: bytes) -> str | None:
    whole = len(data) < _LOOKED_AT  # else the last letter may be cut in two
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=whole).lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        return None
    if not all(letter.isprintable() or letter in "\t\r\n\f" for letter in text):
        return None
    if text[:20].lower().startswith(("<!doctype html", "<html", "<head", "<body", "<!--")):
        return "is a web page: the download failed"
    if text.startswith(("<?xml", "<Error", "<svg")):
        return "is XML text, as servers answer when a download fails"
    if text.startswith(("{", "[")):
        return "is JSON text"
    return "is a text file"
