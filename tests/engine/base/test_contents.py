import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gan_blocks.engine.base.contents import check_regular, is_special, other_content
from gan_blocks.engine.base.errors import UserError
from tests.conftest import zip_of


def a_tar() -> bytes:
    info, buffer = tarfile.TarInfo("x"), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(info)
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer, not the file itself: "),
        (b"/annex/objects/SHA256E-s1--1\n", "is a git-annex pointer, not the file itself: "),
        (b"\n  <!DOCTYPE html>\n<html>", "is a web page: the download failed"),
        ("\ufeff<HTML lang='fr'>pas trouvé</HTML>".encode(), "is a web page: the download failed"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is XML text, as servers answer"),
        (json.dumps({"error": "not found"}).encode(), "is JSON text"),
        (b"hello", "is a text file"),
        (("x" * 1023 + "é").encode(), "is a text file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
        (zip_of("x"), "is a zip archive"),
        (a_tar(), "is a tar archive: unpack it"),
        (gzip.compress(b"x"), "is compressed by gzip: unpack it"),
        (npy(), "is a single array of numpy.save (.npy)"),
        (bytes(5000), "begins with nothing but zero bytes: a copy or download was cut off"),
    ],
)
def test_what_a_file_is_shows_in_its_first_bytes(data: bytes, what: str, tmp_path: Path):
    (tmp_path / "x").write_bytes(data)
    found = other_content(tmp_path / "x")
    assert found is not None
    assert found.startswith(what)


@pytest.mark.parametrize("data", [bytes(range(256)), b"\xff\xfe\x00", b"text\x07and a bell"])
def test_of_other_bytes_nothing_is_said(data: bytes, tmp_path: Path):
    (tmp_path / "x").write_bytes(data)
    assert other_content(tmp_path / "x") is None
    assert other_content(tmp_path / "none") is None


def test_pipes_and_devices_are_no_regular_files(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert is_special(path)
        with pytest.raises(UserError, match=rf"^{path} is no regular file\.$"):
            check_regular(path)
        with pytest.raises(UserError, match=rf"^--config {path} is no regular file\.$"):
            check_regular(path, "--config")
    for path in (tmp_path, tmp_path / "file", tmp_path / "none", tmp_path / ("n" * 300), Path("a\0b")):
        assert not is_special(path)
        check_regular(path)
