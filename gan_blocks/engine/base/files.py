"""Files that outlive a crash: written in full, flushed to the disk, then moved into place in one step.

Tested in ``tests/engine/runs/test_folder.py``.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gan_blocks.engine.base.errors import UserError

__all__ = ["replace_durably", "sync_directory", "write_durably", "writing"]


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


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it. A crash meanwhile leaves a part of it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until the disk has the names in a directory, so that files made or renamed there outlive a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(path: Path, data: bytes, *, remedy: str = "") -> None:
    """Give a file new content in one step: readers and crashes meet the old or the new content, never a part.

    Its folder is made when missing.

    Raises:
        UserError: If it cannot be written, with ``remedy`` as its last sentence.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path, needed=len(data), remedy=remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_durably(temporary, data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def _reason(path: Path, error: OSError, needed: int | None) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error.strerror or str(error)
    mount_point = _mount_point(path)
    room = f"{_size(shutil.disk_usage(mount_point).free)} free"
    if needed is not None:
        room += f", {_size(needed)} needed"
    if error.errno == errno.EDQUOT:
        return f"your quota on the disk mounted at {mount_point} is used up ({room})"
    return f"the disk mounted at {mount_point} is full ({room})"


def _mount_point(path: Path) -> Path:
    return next(folder for folder in path.resolve().parents if folder.is_mount())


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
