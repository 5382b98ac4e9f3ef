"""Files that outlive a crash: written in full, flushed to the disk, then moved into place in one step.

Tested in ``tests/engine/base/test_files.py``.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from gan_blocks.engine.base.chunked_content import ChunkedContent
from gan_blocks.engine.base.errors import UserError

__all__ = [
    "as_seen_from_here",
    "open_fresh",
    "open_regular",
    "read_regular",
    "readable_size",
    "replace_durably",
    "replacing",
    "sync_directory",
    "write_durably",
    "writing",
]

# What file systems answer that cannot flush a directory: CIFS, some of FUSE, WSL1's /mnt.
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}


def as_seen_from_here(path: Path) -> Path:
    """A path to show: relative if it lies in the working directory."""
    with suppress(FileNotFoundError, ValueError):  # the working directory is gone, or the path lies elsewhere
        return path.relative_to(Path.cwd())
    return path


@contextmanager
def writing(path: Path, *, needed: int | None = None, remedy: str = "") -> Iterator[None]:
    """Say in one line what was not written where the system refuses a write within.

    Args:
        path: What is written.
        needed: How many bytes it takes, when known.
        remedy: Closing sentence.

    Raises:
        UserError: In place of an OSError; it names the disk that is full where that is the reason.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} was not written: {_reason(path, error, needed)}. {remedy}".rstrip()) from error


def open_fresh(path: Path) -> BinaryIO:
    """Make a new file to write into, in the place of one that may lie there.

    A link is replaced like a file, never followed: who can write into a folder must not choose what else is written.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def open_regular(path: Path | str) -> BufferedReader:
    """Open a file for reading. What is none, such as a pipe or a device, is not waited for.

    Raises:
        OSError: If it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_regular(path: Path | str) -> bytes:
    """The content of a file; see :func:`open_regular`."""
    with open_regular(path) as file:
        return file.read()


def write_durably(path: Path, data: bytes | ChunkedContent) -> None:
    """Write a new file and wait until the disk has it. A crash meanwhile leaves a part of it."""
    with _noting_free_space(path.parent), open_fresh(path) as file:
        file.writelines([data] if isinstance(data, bytes) else data)
        _sync(file)


def sync_directory(path: Path) -> None:
    """Wait until the disk has the names in a directory, so that files made or renamed there outlive a crash.

    Where the system cannot do that, nothing is waited for.
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def replace_durably(path: Path, data: bytes | ChunkedContent, *, remedy: str = "") -> None:
    """Give a file new content in one step: readers and crashes meet the old or the new content, never a part.

    Its folder is made when missing.

    Raises:
        UserError: If it cannot be written, with ``remedy`` as its last sentence.
    """
    with writing(path, needed=len(data), remedy=remedy), _taking_the_place_of(path) as temporary:
        write_durably(temporary, data)


@contextmanager
def replacing(path: Path, *, needed: int | None = None) -> Iterator[BinaryIO]:
    """As :func:`replace_durably`, for content that is written part by part: give the file to write it into.

    Raises:
        UserError: If it cannot be written.
    """
    with writing(path, needed=needed), _taking_the_place_of(path) as temporary:
        write_durably(temporary, b"")
        flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with _noting_free_space(path.parent), os.fdopen(os.open(temporary, flags), "r+b") as file:
            yield file
            _sync(file)


@contextmanager
def _taking_the_place_of(path: Path) -> Iterator[Path]:
    """A name beside a file for its new content, which replaces it at the end, unless that fails."""
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def _noting_free_space(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:  # now, while what was written is still there
            error.add_note(f"{_FREE}{shutil.disk_usage(folder).free}")
        raise


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


_FULL = (errno.ENOSPC, errno.EDQUOT)
_FREE = "bytes free: "


def _reason(path: Path, error: OSError, needed: int | None) -> str:
    if error.errno not in _FULL:
        return error.strerror or str(error)
    mount_point = _mount_point(path)
    noted = [int(note.removeprefix(_FREE)) for note in getattr(error, "__notes__", ()) if note.startswith(_FREE)]
    room = f"{readable_size(noted[0] if noted else shutil.disk_usage(mount_point).free)} free"
    if needed is not None:
        room += f", {readable_size(needed)} needed"
    if error.errno == errno.EDQUOT:
        return f"your quota on the disk mounted at {mount_point} is used up ({room})"
    return f"the disk mounted at {mount_point} is full ({room})"


def _mount_point(path: Path) -> Path:
    return next(folder for folder in path.resolve().parents if folder.is_mount())


def readable_size(count: float) -> str:
    """A number of bytes as text, such as 36.8 kB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
