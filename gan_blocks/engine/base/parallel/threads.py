"""Work on many images at once, with a progress bar for those who have to wait.

Tested in ``tests/engine/data/kinds/test_folder.py``.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from gan_blocks.engine.base.terminal.console import Progress

__all__ = ["ImageThreads", "map_in_threads"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Submitted at once; a million waiting results would not fit into memory.
_CHUNK = 256


class ImageThreads:
    """Threads for reading and decoding images, which is done without holding Python's lock.

    They are started when they are first used, and again in a process that was forked afterward: threads do not live
    on in the child.

    Args:
        count: How many; one for each core by default, but no more than eight.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = min(8, os.cpu_count() or 1) if count is None else count
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def map(self, function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
        """Start ``function(item)`` for all items; yield the results in their order."""
        if self._pool is None or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(max_workers=self.count, thread_name_prefix="images")
            self._process = os.getpid()
        return self._pool.map(function, items)

    def close(self) -> None:
        """Wait for what was started, and end the threads."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown()
            self._pool = None


def map_in_threads(
    function: Callable[[_Item], _Result], items: Sequence[_Item], *, description: str, threads: int | None = None
) -> Generator[_Result, None, None]:
    """Yield ``function(item)`` in the order of the items; a bar appears on a terminal after two seconds."""
    bar = Progress(total=len(items), desc=description, unit="image", delay=2, leave=False, disable=None)
    with closing(ImageThreads(threads)) as pool, bar:
        for start in range(0, len(items), _CHUNK):
            for result in pool.map(function, items[start : start + _CHUNK]):
                yield result
                bar.update()
