import logging
import os
import struct
import subprocess
import threading
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from gan_blocks.engine.data.opening import MOST_TEXT, image_suffixes, open_image
from gan_blocks.engine.data.pixels import DamagedImageError, PixelLayout, inspect_file, read_file

RGB = PixelLayout(4, 3)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8))
PIXELS = np.asarray(PICTURE).transpose(2, 0, 1)


def limits() -> tuple[object, ...]:
    pillow = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    return *pillow, list(warnings.filters)


def chunk(name: bytes, data: bytes, *, flip: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ flip)


def header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def png_with(before: bytes = b"", after: bytes = b"") -> bytes:
    """The picture with chunks before and after its pixels."""
    buffer = BytesIO()
    PICTURE.save(buffer, "PNG")
    data = buffer.getvalue()
    start = len(header(4, 4))
    return data[:start] + before + data[start:-12] + after + data[-12:]


def reason(path: Path) -> str:
    reasons = []
    for read in (read_file, inspect_file):
        with pytest.raises(DamagedImageError) as caught:
            read(str(path), RGB)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]
    assert "\n" not in reasons[0]
    return reasons[0]


LARGE_TEXT = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x>" + b"a" * 3 * 2**20))


@pytest.mark.parametrize(
    "metadata",
    [
        LARGE_TEXT,
        chunk(b"tEXt", b"Comment\0of a broken disk", flip=1),
        chunk(b"zTXt", b"Comment\0\7unknown"),
        chunk(b"iCCP", b"profile\0\7unknown"),
        chunk(b"pHYs", b"\0"),
        chunk(b"sRGB", b""),
        chunk(b"acTL", b"\0"),
        chunk(b"acTL", bytes(8)),
        chunk(b"eXIf", b"garbage"),
        chunk(b"tEXt", b"Raw profile type exif\0\n\n\nzz"),
    ],
)
def test_metadata_of_a_png_do_not_decide_whether_it_is_read(metadata: bytes, tmp_path: Path):
    path = tmp_path / "x.png"
    before = limits()
    for data in (png_with(before=metadata), png_with(after=metadata)):
        path.write_bytes(data)
        assert np.array_equal(read_file(str(path), RGB)[0], PIXELS)
        assert inspect_file(str(path), RGB).mode == "RGB"
    assert limits() == before


def test_a_picture_is_turned_as_its_whole_exif_says_whatever_else_is_damaged(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    damaged = chunk(b"pHYs", b"\0")
    for turn, orientation in (
        (-1, chunk(b"eXIf", exif.tobytes()[6:])),
        (0, chunk(b"eXIf", exif.tobytes()[6:], flip=1)),
    ):
        (tmp_path / "x.png").write_bytes(png_with(damaged + orientation))
        expected = np.rot90(np.asarray(PICTURE), turn).transpose(2, 0, 1)
        assert np.array_equal(read_file(str(tmp_path / "x.png"), RGB)[0], expected)


def test_the_orientation_in_a_large_text_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1000)
    text = b'<x tiff:Orientation="6">' + b"a" * 3 * 2**20
    (tmp_path / "x.png").write_bytes(png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text))))
    pixels, facts = read_file(str(tmp_path / "x.png"), RGB)
    assert np.array_equal(pixels, np.rot90(np.asarray(PICTURE), -1).transpose(2, 0, 1))
    assert facts.turned


def test_more_text_than_the_limit_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gan_blocks.engine.data.opening.MOST_TEXT", 1000)
    (tmp_path / "x.png").write_bytes(png_with(LARGE_TEXT))
    assert np.array_equal(read_file(str(tmp_path / "x.png"), RGB)[0], PIXELS)
    assert MOST_TEXT == 256 * 2**20


def test_a_png_with_damaged_pixels_is_damaged_whatever_its_metadata(tmp_path: Path):
    data = png_with(chunk(b"pHYs", b"\0"))
    at = data.index(b"IDAT") + 12
    (tmp_path / "x.png").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert reason(tmp_path / "x.png") == "Truncated pHYs chunk"
    (tmp_path / "x.png").write_bytes(header(4, 4) + b"\0\0\0\7IDAT")
    assert reason(tmp_path / "x.png")


@pytest.mark.parametrize("exif", [b"garbage", b"MM\0*\0\0\0\x08\0\xff", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0"])
def test_photographs_with_damaged_exif_are_read_without_a_warning(exif: bytes, tmp_path: Path):
    Image.new("RGB", (4, 4), (200, 200, 200)).save(tmp_path / "x.jpg", exif=b"Exif\0\0" + exif)
    pixels, facts = read_file(str(tmp_path / "x.jpg"), RGB)
    assert (pixels == 200).all()
    assert not facts.turned
    assert inspect_file(str(tmp_path / "x.jpg"), RGB) == facts


def segment(kind: int, data: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(data) + 2) + data


@pytest.mark.parametrize(
    "metadata",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\0\2\0\0"),
        segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xEE, b"Adobe"),
        segment(0xE1, b"Exif\0\0"),
        segment(0xE1, b""),
        segment(0xFE, b""),
    ],
)
def test_metadata_of_a_photograph_does_not_decide_whether_it_is_read(metadata: bytes, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.jpg"
    PICTURE.save(path, exif=exif, quality=95)
    data = path.read_bytes()
    expected = read_file(str(path), RGB)
    assert expected[1].turned
    path.write_bytes(data[:2] + metadata + data[2:])
    pixels, facts = read_file(str(path), RGB)
    assert facts.turned or metadata[1] == 0xE1
    if facts.turned:
        assert np.array_equal(pixels, expected[0])
    assert inspect_file(str(path), RGB) == facts
    path.write_bytes(data[:2] + metadata + data[2:-300])
    assert "\n" not in reason(path)


def test_what_pillow_logs_of_damaged_files_stays_off_the_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    PICTURE.save(tmp_path / "x.tif")
    samples = struct.pack("<HHIH", 277, 3, 1, 3)
    data = (tmp_path / "x.tif").read_bytes()
    assert data.count(samples) == 1
    (tmp_path / "x.tif").write_bytes(data.replace(samples, struct.pack("<HHIH", 277, 3, 1, 300)))
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's, instead of which there is none in a command
    assert reason(tmp_path / "x.tif")
    assert capsys.readouterr().err == ""


def test_a_gigapixel_is_the_limit_and_nothing_is_said_below(tmp_path: Path):
    path = tmp_path / "x.png"
    for side in (40_000, 2**31 - 1):
        path.write_bytes(header(side, side) + b"\0\0\1\0IDAT")
        assert reason(path) == "shrink it below 1,000 megapixels"
    path.write_bytes(header(14_000, 14_000) + b"\0\0\1\0IDAT")  # two warnings of Pillow would be errors here
    assert "megapixels" not in reason(path)


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


def iptc_with(data: bytes) -> bytes:
    def field(record: int, number: int, value: bytes) -> bytes:
        return bytes([0x1C, record, number]) + struct.pack(">H", len(value)) + value

    size = struct.pack(">H", 8)
    fields = [(3, 20, size), (3, 30, size), (3, 60, b"\1\0"), (3, 120, b"\5"), (8, 10, data)]
    return b"".join(field(*each) for each in fields)


@pytest.mark.parametrize("data", [eps(), iptc_with(eps())])
def test_no_picture_starts_a_program(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: object, **options: object) -> None:
        raise AssertionError

    for name in ("check_call", "run", "Popen"):
        monkeypatch.setattr(subprocess, name, fail)
    (tmp_path / "x.png").write_bytes(data)
    assert "is not read: it can make other programs start" in reason(tmp_path / "x.png")
    assert image_suffixes().isdisjoint({".eps", ".ps", ".iim"})
    assert image_suffixes() >= {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def test_what_is_no_picture_is_named(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "empty.png").touch()
    (tmp_path / "lfs.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html>not found</html>")
    (tmp_path / "noise.jpg").write_bytes(bytes(range(100, 200)))
    for name, why in (
        ("pipe.png", "it is no regular file"),
        ("zero.png", "it is no regular file"),
        ("empty.png", "it is empty"),
        ("lfs.png", "it is a Git LFS pointer, not the file itself: git lfs pull fetches it"),
        ("page.jpg", "it is a web page: the download failed"),
        ("noise.jpg", f"cannot identify image file '{tmp_path}/noise.jpg'"),
        ("none.jpg", f"[Errno 2] No such file or directory: '{tmp_path}/none.jpg'"),
    ):
        assert reason(tmp_path / name) == why


def test_limits_hold_while_any_thread_reads_and_are_as_before_when_the_last_one_has_left(tmp_path: Path):
    path = tmp_path / "x.png"
    path.write_bytes(png_with())
    before, opened, leave = limits(), threading.Event(), threading.Event()

    def read_slowly() -> None:
        with open_image(str(path)):
            opened.set()
            leave.wait()

    thread = threading.Thread(target=read_slowly)
    thread.start()
    opened.wait()
    for _ in range(3):
        with open_image(str(path)):
            assert limits() != before
    assert limits()[1:3] == (MOST_TEXT, MOST_TEXT)
    leave.set()
    thread.join()
    assert limits() == before
    with pytest.raises(DamagedImageError):
        read_file(str(tmp_path / "none.png"), RGB)
    assert limits() == before
