"""What torch's C++ writes to standard error, past Python.

Tested in ``tests/engine/base/parallel/test_rendezvous.py``.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import torch

__all__ = ["ERRORS", "NOTHING", "torch_log"]

ERRORS, NOTHING = 2, 3
"""Levels: errors but no warnings; neither."""


@contextlib.contextmanager
def torch_log(level: int) -> Iterator[None]:
    """Let torch's C++ write no more than this for the ``with`` block.

    A store that is gone is written about with a stack trace for every call, and Python gets the error anyway. Who sets
    ``TORCH_CPP_LOG_LEVEL`` reads what that asks for.
    """
    threshold = None if "TORCH_CPP_LOG_LEVEL" in os.environ else _threshold()
    if threshold is None:
        yield
        return
    before = threshold.value
    threshold.value = max(level, before)
    try:
        yield
    finally:
        threshold.value = before


def _threshold() -> ctypes.c_int | None:
    """The variable that TORCH_CPP_LOG_LEVEL sets when torch is imported, too early for a command to set it."""
    for library in Path(torch.__file__).parent.glob("lib/*c10.*"):
        with contextlib.suppress(OSError, ValueError):
            return ctypes.c_int.in_dll(ctypes.CDLL(str(library)), "FLAGS_caffe2_log_level")
    return None
