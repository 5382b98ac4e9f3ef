"""The source of CIFAR-10: the standard binary archive, packed or extracted.

Tested in ``tests/engine/data/kinds/test_cifar10.py``.
"""

import re
import tarfile
from pathlib import Path

import numpy as np

from gan_blocks.engine.base.contents import other_content
from gan_blocks.engine.data.arrays import LabeledArrays, image_set_from_arrays
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import DataShape, ReadRequest, SourceKind

__all__ = ["CIFAR10", "read_cifar10"]

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAINING_FILE = re.compile(r"data_batch_\d+\.bin")
_TRAINING_FILES = 5
_IMAGE_BYTES = 3 * 32 * 32


def read_cifar10(source: DataSource) -> LabeledArrays:
    """Read the training images (50,000 of them); nothing is extracted to disk.

    Raises:
        UserError: If the path is missing or damaged, or holds no training files in the binary form.
    """
    path = source.existing_path()
    files = _files_of_folder(source, path) if path.is_dir() else _files_of_archive(source, path)
    if not files:
        raise source.error(
            "there is no data_batch_1.bin inside; the binary version is wanted (cifar-10-binary.tar.gz, or the folder "
            "cifar-10-batches-bin that it extracts to), not the Python or Matlab one."
        )
    for name, data in files.items():
        if len(data) % (1 + _IMAGE_BYTES) or not data:
            raise source.error(f"{name} is damaged: its {len(data):,} bytes are no whole number of records.")
    # A record: the label, then the red, the green and the blue plane.
    records = np.frombuffer(b"".join(files[name] for name in sorted(files)), np.uint8).reshape(-1, 1 + _IMAGE_BYTES)
    if records[:, 0].max() >= len(_CLASSES):
        raise source.error(f"labels must be 0 to 9, but one is {records[:, 0].max()}; is this CIFAR-100?")
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    notes = () if len(files) == _TRAINING_FILES else (f"found {len(files)} of the {_TRAINING_FILES} training files",)
    return LabeledArrays(images, records[:, 0].astype(np.int64), _CLASSES, notes)


def _files_of_folder(source: DataSource, folder: Path) -> dict[str, bytes]:
    inner = folder / "cifar-10-batches-bin"
    paths = (inner if inner.is_dir() else folder).iterdir()
    found = [path for path in paths if _TRAINING_FILE.fullmatch(path.name)]
    for path in found:
        source.check_regular(path)
    return {path.name: path.read_bytes() for path in found}


def _files_of_archive(source: DataSource, path: Path) -> dict[str, bytes]:
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if _TRAINING_FILE.fullmatch(name) and (file := archive.extractfile(member)):
                    files[name] = file.read()
    except MemoryError:
        raise
    except Exception as error:  # of tarfile, gzip, lzma and their like
        what = other_content(path, "compressed", "tar")
        reason = error if what is None else f"it {what}"
        raise source.error(f"the archive is damaged or no .tar.gz ({reason}); fetch it again.") from error
    return files


def _read(source: DataSource, request: ReadRequest) -> ImageSet:
    return image_set_from_arrays(read_cifar10(source), request.layout)


CIFAR10 = SourceKind(
    name="cifar10",
    summary="the 50,000 training images of CIFAR-10, from cifar-10-binary.tar.gz or the folder that it extracts to",
    read=_read,
    shape=lambda _source, _num_classes: DataShape(3, len(_CLASSES)),
    recognizes=lambda path: Path(path).name.startswith("cifar-10"),
    hint="For CIFAR-10",
)
