import gzip
import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_blocks.engine.data.image_set import ImageSet
from tests.conftest import zip_of
from tests.engine.data.reading import error_of, levels, load, random_bytes

# --- npz ---


def write_npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


LABELS = np.array([0, 1, 2, 1])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_npz_images_come_back_unchanged_when_they_fit(dtype: type, tmp_path: Path):
    images = random_bytes(4, 32, 32, 3)
    loaded = load(write_npz(tmp_path / "x.npz", images=images, labels=LABELS.astype(dtype)), num_classes=3)
    assert np.array_equal(levels(loaded), images.transpose(0, 3, 1, 2))
    assert loaded.labels.dtype == torch.int64
    assert loaded.labels.tolist() == [0, 1, 2, 1]
    assert loaded.class_names == ("0", "1", "2")
    assert loaded.notes == ()


@pytest.mark.parametrize("shape", [(4, 32, 32), (4, 32, 32, 1)])
def test_gray_npz_images_have_one_channel_or_become_rgb(shape: tuple[int, ...], tmp_path: Path):
    images = random_bytes(*shape)
    spec = write_npz(tmp_path / "x.npz", images=images, labels=LABELS)
    gray = images.reshape(4, 1, 32, 32)
    assert np.array_equal(levels(load(spec, channels=1)), gray)
    rgb = load(spec)
    assert np.array_equal(levels(rgb), gray.repeat(3, axis=1))
    assert rgb.notes == ("converted 4 of 4 images to RGB: 4 gray",)


def test_npz_images_are_cropped_and_averaged_like_files(tmp_path: Path):
    images = random_bytes(4, 64, 70, 3)
    loaded = load(write_npz(tmp_path / "x.npz", images=images, labels=LABELS))
    blocks = images[:, :, 3:67].reshape(4, 32, 2, 32, 2, 3).astype(int).sum(axis=(2, 4))
    assert np.array_equal(levels(loaded), ((blocks + 2) // 4).transpose(0, 3, 1, 2))


def test_transparent_npz_images_are_laid_over_white(tmp_path: Path):
    images = np.zeros((4, 32, 32, 4), np.uint8)
    loaded = load(write_npz(tmp_path / "x.npz", images=images, labels=LABELS))
    assert (levels(loaded) == 255).all()


IMAGES = np.zeros((4, 8, 8, 3), np.uint8)


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, IMAGES)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"images": IMAGES},
            "the file must hold the arrays images and labels, but labels is missing; it holds images. "
            "To train without classes give --num-classes 1.",
        ),
        (
            {"x": IMAGES, "y": LABELS},
            "the file must hold the arrays images and labels, but images and labels are missing; it holds x, y.",
        ),
        (
            {"images": IMAGES.astype(np.float32), "labels": LABELS},
            "images must be of dtype uint8 (0 to 255), but got float32.",
        ),
        (
            {"images": IMAGES[..., :2], "labels": LABELS},
            "images must be of shape (number, height, width) or (number, height, width, channels) with 1, 3 or 4 "
            "channels and at least one image, but got (4, 8, 8, 2).",
        ),
        (
            {"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS},
            "images must be of shape (number, height, width) or (number, height, width, channels) with 1, 3 or 4 "
            "channels and at least one image, but got (4, 3, 8, 8). "
            "The channels come last: images.transpose(0, 2, 3, 1).",
        ),
        (
            {"images": IMAGES[:0], "labels": LABELS[:0]},
            "images must be of shape (number, height, width) or (number, height, width, channels) with 1, 3 or 4 "
            "channels and at least one image, but got (0, 8, 8, 3).",
        ),
        (
            {"images": IMAGES, "labels": LABELS.astype(np.float64)},
            "labels must be integers, but got dtype float64.",
        ),
        (
            {"images": IMAGES, "labels": np.eye(3)[LABELS]},
            "labels must be of shape (4,), one for each image, but got (4, 3); "
            "labels.argmax(1) makes that of one-hot labels.",
        ),
        (
            {f"array_{number:02}": LABELS for number in range(12)},
            "the file must hold the arrays images and labels, but images and labels are missing; it holds "
            f"{', '.join(f'array_{number:02}' for number in range(10))} and 2 more.",
        ),
        ({"images": IMAGES, "labels": LABELS > 0}, "labels must be integers, but got dtype bool."),
        (
            {"images": IMAGES, "labels": LABELS[:3]},
            "labels must be of shape (4,), one for each image, but got (3,).",
        ),
        (
            {"images": IMAGES, "labels": LABELS[:, None]},
            "labels must be of shape (4,), one for each image, but got (4, 1).",
        ),
        (
            {"images": IMAGES, "labels": LABELS - 1},
            "labels must be from 0 to 3 (the number of images is 4), but they go from -1 to 1.",
        ),
        (
            {"images": IMAGES, "labels": LABELS * 10**9},
            "labels must be from 0 to 3 (the number of images is 4), but they go from 0 to 2000000000.",
        ),
        (
            {"images": IMAGES, "labels": np.ones(4, int)},
            "all labels are equal. To train on one class on purpose give --num-classes 1.",
        ),
        ({"images": IMAGES[:1], "labels": LABELS[:1]}, "the data holds 1 image; training needs at least 2."),
    ],
)
def test_arrays_that_break_a_rule_are_an_error(arrays: dict[str, np.ndarray], message: str, tmp_path: Path):
    assert error_of(write_npz(tmp_path / "x.npz", **arrays)) == message


def test_without_classes_there_need_be_no_labels(tmp_path: Path):
    images = random_bytes(4, 32, 32, 3)
    alone, labeled = tmp_path / "alone.npz", tmp_path / "labeled.npz"
    write_npz(labeled, images=images, labels=LABELS)
    found = load(write_npz(alone, images=images), num_classes=1)
    assert found.labels.tolist() == [0, 0, 0, 0]
    assert found.num_classes == 1
    assert torch.equal(levels_of(found), levels_of(load(f"npz:{labeled}", num_classes=1)))
    message = error_of(write_npz(alone, labels=LABELS), num_classes=1)
    assert message == "the file must hold the arrays images and labels, but images is missing; it holds labels."


def levels_of(images: ImageSet) -> torch.Tensor:
    return images.read_pixels(torch.arange(len(images)))


def header_of(text: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def described(shape: object, descr: str = "|u1") -> bytes:
    return header_of(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            described("(99999999999999999999, 16)"),
            "images should be of shape (99999999999999999999, 16) and dtype uint8",
        ),
        (described(f"({'9' * 4000}, 16)"), "images should be of shape (999999"),
        (described(f"({'9' * 5000}, 16)"), "images has no header of numpy.save that makes sense"),
        (described((2**40, 2**20, 2**20)), "images should be of shape (1099511627776, 1048576, 1048576)"),
        (described((10**6, 256, 256, 3)), "images should be of shape (1000000, 256, 256, 3)"),
        (described((-1, 16)) + bytes(64), "images should be of shape (-1, 16)"),
        (described((-4, -4, 4)) + bytes(64), ""),
        (
            described((4, 8, 8, 3)) + bytes(768 + 10**6),
            "images should be of shape (4, 8, 8, 3) and dtype uint8, but has 1,",
        ),
        (
            described((4, 8, 8, 3)) + bytes(767),
            "images should be of shape (4, 8, 8, 3) and dtype uint8, but has 767 bytes",
        ),
        (described((4, 8), "|O") + bytes(64), "Object arrays cannot be loaded, and images holds Python objects"),
        (header_of("((((\n"), "images has no header"),
        (header_of("-" * 9000 + "1\n"), "images has no header"),
        (header_of("(" * 9000 + "\n"), "images has no header"),
        (header_of("1or 2\n"), "images has no header"),
        (header_of("{}\n"), "images has no header"),
        (header_of("x" * 20_000 + "\n"), "images has no header"),
        (b"\x93NUMPY\1\0\xff\xff", "images has no header"),
        (b"\x93NUMPY\7\0", "images has no header"),
        (b"no array at all", "images has no header"),
        (b"", "images has no header"),
    ],
)
def test_an_array_that_is_not_what_its_header_says_is_an_error(content: bytes, why: str, tmp_path: Path):
    for name in ("images.npy", "images"):
        with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
            archive.writestr("labels.npy", npy())
        message = error_of(f"npz:{tmp_path}/x.npz")
        assert message.startswith(f"the file cannot be read as .npz ({why}")
        assert message.endswith("); write it with numpy.savez(PATH, images=..., labels=...).")
        assert "allow_pickle" not in message
        assert len(message) < 300


def test_arrays_that_do_not_fit_into_memory_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np.lib.format, "read_array", fail)
    spec = write_npz(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    assert error_of(spec) == "its arrays do not fit into memory."


def test_a_zip_file_of_pictures_is_answered_with_how_to_read_them(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "imgs.zip", "w") as archive:
        for number in range(5000):
            archive.writestr(f"00000/img{number:08}.png", b"")
    assert error_of(f"npz:{tmp_path}/imgs.zip") == (
        "the file must hold the arrays images and labels, but images and labels are missing; it holds "
        f"{', '.join(f'00000/img{number:08}.png' for number in range(10))} and 4,990 more. "
        "For images in a zip file unpack it and use --data folder:PATH."
    )


WRITE_IT = "write it with numpy.savez(PATH, images=..., labels=...)"


@pytest.mark.parametrize(
    ("name", "data", "advice"),
    [
        ("d.h5", b"\x89HDF\r\n\x1a\n" + bytes(90), f"It is an HDF5 file: {WRITE_IT} and use --data npz:PATH."),
        ("x.npy", npy(), f"It is a single array of numpy.save (.npy): {WRITE_IT} and use --data npz:PATH."),
        ("imgs.zip", zip_of("a/1.png"), "It is a zip archive: unpack it and use --data folder:PATH."),
        ("arrays.zip", zip_of("images.npy"), "For a file of arrays write --data npz:{path}."),
        ("x.tgz", gzip.compress(b""), "It is compressed by gzip: unpack it and use --data folder:PATH."),
        ("cifar-10-binary.tar.gz", gzip.compress(b""), "For CIFAR-10 write --data cifar10:{path}."),
        ("x.png", b"\x89PNG\r\n\x1a\n", "It is a PNG picture: --data folder:PATH names a folder of them."),
        ("x.npz", b"<html>", "It is a web page: the download failed."),
    ],
)
def test_a_bare_path_of_a_file_is_answered_by_what_it_is(name: str, data: bytes, advice: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(data)
    assert error_of(str(path)).endswith(f"folder:PATH. {advice.format(path=path)}")
    if "arrays" not in name and "imgs" not in name and "png" not in name:
        message = error_of(f"npz:{path}")
        assert message.startswith("the file cannot be read as .npz (it is ")
        assert "allow_pickle" not in message


@pytest.mark.parametrize("name", ["npz", "cifar10", "fashion-mnist", "shards", "folder"])
def test_no_source_waits_for_a_pipe_or_reads_a_device(name: str, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert error_of(f"{name}:{path}") == f"{path} is no regular file."
    for inside in ("data_batch_1.bin", "train-images-idx3-ubyte"):
        os.mkfifo(tmp_path / inside)
    if name in ("cifar10", "fashion-mnist"):
        inside = {"cifar10": "data_batch_1.bin", "fashion-mnist": "train-images-idx3-ubyte"}[name]
        assert error_of(f"{name}:{tmp_path}") == f"{tmp_path}/{inside} is no regular file."


def test_labels_beyond_the_networks_classes_are_an_error(tmp_path: Path):
    spec = write_npz(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    message = "labels must be from 0 to 1 (--num-classes is 2), but they go from 0 to 2."
    assert error_of(spec, num_classes=2) == message


def test_classes_without_images_are_noted(tmp_path: Path):
    images = np.zeros((4, 32, 32, 3), np.uint8)
    spec = write_npz(tmp_path / "x.npz", images=images, labels=np.array([1, 1, 3, 3]))
    assert load(spec, num_classes=6).notes == (
        "2 of 4 classes have no images, such as 0",
        "the networks have 6 classes, the data 4",
    )


def test_pickled_objects_are_refused(tmp_path: Path):
    spec = write_npz(tmp_path / "x.npz", images=IMAGES, labels=np.array([0, 1, None, "x"], dtype=object))
    message = error_of(spec)
    assert message.startswith("the file cannot be read as .npz (Object arrays cannot be loaded")


def whole_npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=random_bytes(4, 8, 8, 3), labels=LABELS)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"text", npy(), whole_npz()[:-30], whole_npz()[:200] + bytes(50) + whole_npz()[250:]],
    ids=["empty", "text", "npy", "cut", "overwritten"],
)
def test_a_file_that_is_no_whole_npz_is_an_error(data: bytes, tmp_path: Path):
    (tmp_path / "x.npz").write_bytes(data)
    message = error_of(f"npz:{tmp_path}/x.npz")
    assert message.startswith("the file cannot be read as .npz (")
    assert "header of numpy" not in message
    assert message.endswith("); write it with numpy.savez(PATH, images=..., labels=...).")


def test_class_names_of_an_npz_are_those_of_the_classes(tmp_path: Path):
    names = np.array(["ant", "bee", "cat", "Dömse"])
    found = load(write_npz(tmp_path / "x.npz", images=IMAGES, labels=LABELS, class_names=names))
    assert found.class_names == ("ant", "bee", "cat", "Dömse")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            np.array([b"a", b"b", b"c"]),
            "class_names must be text, one name for each class, but got dtype |S1 and shape",
        ),
        (
            np.array([["a", "b"]]),
            "class_names must be text, one name for each class, but got dtype <U1 and shape (1, 2)",
        ),
        (np.array(["a"]), "labels must be from 0 to 0 (the number of class_names is 1), but they go from 0 to"),
    ],
)
def test_class_names_that_do_not_fit_are_one_line(names: np.ndarray, message: str, tmp_path: Path):
    assert error_of(write_npz(tmp_path / "x.npz", images=IMAGES, labels=LABELS, class_names=names)).startswith(message)
