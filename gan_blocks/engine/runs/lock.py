"""One process at a time writes into the folder of a run.

Tested in ``tests/engine/runs/test_lock.py``.
"""

import errno
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import writing

__all__ = ["LOCK_NAME", "FolderLock", "refuse_links"]

LOCK_NAME = ".lock"
# What file systems answer that have no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class FolderLock:
    """Holds a folder for this process until it is closed, or the process ends, however it does.

    Args:
        path: The folder, which exists.

    Attributes:
        note: A sentence for the user where the file system cannot lock; None where it has.

    Raises:
        UserError: If another process holds the folder; it is named.
    """

    def __init__(self, path: Path) -> None:
        self.note: str | None = None
        self._descriptor: int | None = None
        with writing(path / LOCK_NAME):
            # Never through a link, and not cut short: what it says is that of the process that holds it.
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            self._descriptor = os.open(path / LOCK_NAME, flags, 0o666)
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
        try:
            _lock(self._descriptor)
        except BlockingIOError:
            holder = _read_holder(self._descriptor)
            self.close()
            remedy = "Wait until it has ended, or name another folder."
            raise UserError(f"{path} is in use by {holder}. {remedy}") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self.note = f"The file system of {path} has no locks: let no other process write there."
            return
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())

    def close(self) -> None:
        """Let go of the folder."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def refuse_links(path: Path) -> None:
    """Check that nothing in the folder of a run is a link: what is written and removed there must lie there.

    Raises:
        UserError: If something is; it is named.
    """
    for folder in (path, path / "checkpoints", path / "samples"):
        if not folder.is_dir():
            continue
        for entry in folder.iterdir():
            if entry.is_symlink():
                remedy = "Put what it points to in its place, or continue a copy of the run."
                raise UserError(f"{entry} is a link, and a run writes into its own folder alone. {remedy}")


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_holder(descriptor: int) -> str:
    try:
        holder: Any = json.loads(os.read(descriptor, 1000))
        return f"process {int(holder['pid'])} on {ascii(str(holder['host']))[1:-1]}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another process"
