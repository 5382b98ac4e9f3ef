"""The binary archive of CIFAR-10, packed and extracted."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.engine.data.reading import cut, error_of, levels, load, random_bytes

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
