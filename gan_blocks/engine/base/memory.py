"""Memory that is not there: asked for before it is taken, and one line where it runs out.

Tested in ``tests/engine/base/test_memory.py``.
"""

import ctypes
import os
import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from gan_blocks.engine.base.errors import UserError

__all__ = [
    "check_disk_space",
    "check_fits",
    "check_memory",
    "free_memory",
    "keep_freed_memory",
    "out_of_memory",
    "physical_memory",
    "within_memory",
]

# What torch says of sizes that no machine can hold.
_TOO_LARGE = re.compile("overflow|negative dimension|can't allocate memory|not enough memory", re.IGNORECASE)

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the process keep the memory of tensors that are freed, up to 2 GiB of it, for those that come next.

    By default the GNU C library returns each large one to the system, which hands it back filled with zeros: on the CPU
    that takes a tenth of the time of training small networks, and a quarter of that of drawing images of 128x128.

    Returns:
        Whether the C library knows how.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if tune is None:
        return False
    return all([tune(_M_MMAP_MAX, 0), tune(_M_TRIM_THRESHOLD, 2**31 - 1)])


def free_memory() -> int | None:
    """Bytes that this process can still take, with those of the swap space; None where the system does not say."""
    try:
        sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE))
        free = 1024 * (int(sizes["MemAvailable"]) + int(sizes["SwapFree"]))
        used = resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, KeyError, ValueError):
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return free if limit == resource.RLIM_INFINITY else min(free, max(limit - used, 0))


def check_fits(what: str, needed: int) -> None:
    """Check that there is room for what is about to be made.

    Args:
        what: Subject of the sentence, in the plural, such as ``"the networks of these options"``.
        needed: Bytes that it takes at least.

    Raises:
        UserError: If there is not.
    """
    free = free_memory()
    if free is not None and needed > free:
        raise UserError(f"{what} need {_gigabytes(needed)} or more, but {_gigabytes(free)} are free.")


def check_memory(option: str, value: int, bytes_each: int) -> None:
    """Raise UserError where so many things of so many bytes are more than the memory of this machine."""
    _check_room(option, value, bytes_each, physical_memory(), "for which this machine has memory")


def check_disk_space(option: str, value: int, bytes_each: int, path: Path) -> None:
    """Raise UserError where so many things of so many bytes are more than the disk has room for at a path."""
    folder = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    _check_room(option, value, bytes_each, shutil.disk_usage(folder).free, f"for which there is room in {folder}")


def _check_room(option: str, value: int, bytes_each: int, available: int, why: str) -> None:
    most = available // bytes_each
    if value > most:
        raise UserError(f"{option} must be at most {most:,}, {why}, but got {value}.")


def physical_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def within_memory(what: str, *, copies: int) -> Iterator[None]:
    """Build networks in the ``with`` block, unless they are too large for this machine.

    Linux gives out more memory than there is, and ends the process when it is used; so sizes are added up instead.

    Args:
        what: What is built, in the plural.
        copies: How many tensors there will be for each that is made here, such as gradients; 0 on the meta device.

    Raises:
        UserError: If there is no room for all of it.
    """
    free = free_memory()
    seen: dict[int, int] = {}

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        # Before it is filled. One that a parametrization registers again has the same memory.
        if parameter is None or is_lazy(parameter) or parameter.is_meta:
            return
        seen[parameter.untyped_storage().data_ptr()] = parameter.nbytes
        needed = copies * sum(seen.values())
        if free is not None and needed > free:
            check_fits(what, needed)

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        if _TOO_LARGE.search(f"{type(error).__name__} {error}") is None:
            raise
        raise UserError(f"{what} need more memory than any machine has.") from error
    finally:
        hook.remove()


def out_of_memory(error: BaseException) -> str | None:
    """A few words if an error says that memory has run out, of the machine or of a GPU; None if it is another."""
    if isinstance(error, torch.OutOfMemoryError):
        asked = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
        return f"the GPU is out of memory{f': {asked[1]} more were asked for' if asked else ''}"
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
        asked = re.search(r"allocate (\d+) bytes", str(error))
        return f"out of memory{f': {_gigabytes(int(asked[1]))} more were asked for' if asked else ''}"
    return None


def _gigabytes(count: float) -> str:
    if count >= 1e15:
        return "millions of GB"
    return f"{count / 1e9:,.0f} GB" if count >= 1e11 else f"{count / 1e9:.3g} GB"
