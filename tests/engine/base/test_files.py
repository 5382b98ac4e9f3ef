import errno
import os
from pathlib import Path

import pytest

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import open_fresh, replace_durably, replacing, sync_directory, write_durably


@pytest.mark.parametrize("write", [write_durably, replace_durably])
def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path, write):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("log.jsonl", ".log.jsonl.tmp"):
        (tmp_path / name).symlink_to(victim)
    write(tmp_path / "log.jsonl", b"new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "log.jsonl").read_text() == "new"
    assert not (tmp_path / "log.jsonl").is_symlink()


def test_a_link_that_leads_nowhere_is_replaced(tmp_path: Path):
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    with open_fresh(tmp_path / "file") as file:
        file.write(b"here")
    assert not (tmp_path / "elsewhere").exists()


def test_files_have_the_permissions_that_the_umask_leaves(tmp_path: Path):
    before = os.umask(0o027)
    try:
        replace_durably(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_directory_that_cannot_be_flushed_is_no_failed_write(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
):
    flush = os.fsync

    def of_files_alone(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", of_files_alone)
    replace_durably(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_a_directory_whose_flush_fails_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        sync_directory(tmp_path)
    with pytest.raises(UserError, match=r"file was not written: Input/output error\.$"):
        replace_durably(tmp_path / "file", b"")


def test_content_that_is_written_in_parts_appears_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "folder" / "file"
    with replacing(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    with pytest.raises(UserError, match=r"file was not written: Input/output error"):
        write_half(path, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(KeyboardInterrupt):
        write_half(path, KeyboardInterrupt())
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def write_half(path: Path, error: BaseException) -> None:
    with replacing(path) as file:
        file.write(b"torn")
        raise error
