"""A process that dies in the middle of writing."""

import itertools
import os
from collections.abc import Callable
from typing import Any

CHANGES = ("mkdir", "fsync", "rename", "replace", "unlink", "rmdir")  # of the disk


def die_before(count: int) -> None:
    """End this process before its n-th change of the disk, counted from 0."""
    calls = itertools.count()

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if next(calls) == count:
                os._exit(1)
            return original(*args, **options)

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))
