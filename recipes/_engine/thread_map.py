"""Work on many images at once, with a progress bar for those who have to wait.

Tested in ``tests/recipes/test_data_folder.py``.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

__all__ = ["image_pool", "map_in_threads"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Submitted at once; a million waiting results would not fit into memory.
_CHUNK = 256


def image_pool() -> ThreadPoolExecutor:
    """Return a pool of threads for decoding, which Pillow does without holding Python's lock."""
    return ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="images")


def map_in_threads(
    function: Callable[[_Item], _Result], items: Sequence[_Item], *, description: str
) -> Iterator[_Result]:
    """Yield ``function(item)`` in the order of the items; a bar appears on a terminal after two seconds."""
    bar = tqdm(total=len(items), desc=description, unit="image", delay=2, leave=False, disable=None)
    with image_pool() as pool, bar:
        for start in range(0, len(items), _CHUNK):
            for result in pool.map(function, items[start : start + _CHUNK]):
                yield result
                bar.update()
