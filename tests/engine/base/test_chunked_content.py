from collections.abc import Iterator
from pathlib import Path

import xxhash

from gan_blocks.engine.base.chunked_content import ChunkedContent
from gan_blocks.engine.base.files import replace_durably, write_durably

PARTS = [b"first", b"", b"second" * 1000]
WHOLE = b"".join(PARTS)


class Counted:
    def __init__(self) -> None:
        self.passes = 0

    def __call__(self) -> Iterator[bytes]:
        self.passes += 1
        return iter(PARTS)


def test_a_file_gets_the_chunks_one_after_the_other(tmp_path: Path):
    for write in (write_durably, replace_durably):
        write(tmp_path / "file", ChunkedContent(len(WHOLE), Counted()))
        assert (tmp_path / "file").read_bytes() == WHOLE


def test_what_has_been_written_is_hashed_in_the_same_pass(tmp_path: Path):
    counted = Counted()
    content = ChunkedContent(len(WHOLE), counted)
    write_durably(tmp_path / "file", content)
    assert content.entry() == {"size": len(WHOLE), "xxh3_128": xxhash.xxh3_128_hexdigest(WHOLE)}
    assert counted.passes == 1


def test_what_was_not_written_to_its_end_is_hashed_anew():
    content = ChunkedContent(len(WHOLE), Counted())
    next(iter(content))
    assert content[:7] == b"firstse"
    assert content.entry()["xxh3_128"] == xxhash.xxh3_128_hexdigest(WHOLE)
