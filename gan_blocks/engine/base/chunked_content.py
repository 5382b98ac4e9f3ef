"""The content of a file that is never in memory as a whole.

Tested in ``tests/engine/base/test_chunked_content.py``.
"""

from collections.abc import Callable, Iterator
from typing import Any

import xxhash

__all__ = ["ChunkedContent"]

Chunk = bytes | memoryview


class ChunkedContent:
    """Bytes that are made chunk by chunk when they are written, and hashed on the way.

    Args:
        size: How many bytes there are.
        chunks: Makes them anew at each call. A chunk holds until the next one is asked for.
    """

    def __init__(self, size: int, chunks: Callable[[], Iterator[Chunk]]) -> None:
        self._size, self._chunks = size, chunks
        self._hash: str | None = None

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Chunk]:
        digest = xxhash.xxh3_128()
        for chunk in self._chunks():
            digest.update(chunk)  # now, while it is in the processor's cache
            yield chunk
        self._hash = digest.hexdigest()

    def __getitem__(self, part: slice) -> bytes:
        return b"".join(bytes(chunk) for chunk in self)[part]

    def entry(self) -> dict[str, Any]:
        """Size and XXH3 hash, as a manifest lists them; known without another pass once all has been written."""
        if self._hash is None:
            for _ in self:
                pass
        return {"size": self._size, "xxh3_128": self._hash}
