"""The source of a user's own arrays in one .npz file.

Tested in ``tests/engine/data/test_arrays.py``.
"""

import math
import os.path
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from itertools import islice
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gan_blocks.engine.base.contents import other_content
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.arrays import LabeledArrays, image_set_from_arrays
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import DataShape, ReadRequest, SourceKind

__all__ = ["NPZ", "advice_on", "read_npz"]

_SUFFIX = ".npy"
_NAMED = 10
_WRITE_IT = "write it with numpy.savez(PATH, images=..., labels=...)"


def read_npz(source: DataSource, *, num_classes: int | None) -> LabeledArrays:
    """Read the arrays ``images`` and ``labels``; classes are named by ``class_names`` or, without, by their numbers.

    Args:
        source: The source, with the path of the file.
        num_classes: Number of classes that the labels may have, if that is known. 1: any number, which will be taken as
            one, and there need be no labels.

    Raises:
        UserError: If the file is missing or damaged, lacks an array, or an array has a wrong dtype, shape or value.
    """
    arrays = _read_arrays(source, labels_needed=num_classes != 1)
    images = _checked_images(source, arrays["images"])
    labels = np.zeros(len(images), np.int64)
    names = _checked_names(source, arrays["class_names"]) if "class_names" in arrays else ()
    if "labels" in arrays:
        limits = {"--num-classes": 0 if num_classes == 1 else num_classes, "the number of class_names": len(names)}
        labels = _checked_labels(source, arrays["labels"], len(images), limits)
    return LabeledArrays(images, labels, names or tuple(str(number) for number in range(labels.max() + 1)))


def advice_on(path: str) -> str:
    """What to do with a file that is certainly no .npz, as a sentence; nothing where it may be one."""
    what = other_content(path, "empty") if os.path.isfile(path) else None  # noqa: PTH113 - pathlib's raises
    if what is None or ("zip archive" in what and _holds_arrays(path)):
        return ""
    if "archive" in what or "unpack" in what:
        return f" It {what.removesuffix(': unpack it')}: unpack it and use --data folder:PATH."
    if "picture" in what:
        return f" It {what}: --data folder:PATH names a folder of them."
    return f" It {what}." if ":" in what else f" It {what}: {_WRITE_IT} and use --data npz:PATH."


def _holds_arrays(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(_SUFFIX) for name in archive.namelist())
    except Exception:
        return True  # a damaged one


def _read_arrays(source: DataSource, *, labels_needed: bool) -> dict[str, NDArray[Any]]:
    path = source.existing_path()
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(_SUFFIX): name for name in archive.namelist()}
            needed = ("images", "labels") if labels_needed else ("images",)
            if missing := [name for name in needed if name not in held]:
                raise source.error(_missing(source, missing, held))
            wanted = [name for name in ("images", "labels", "class_names") if name in held]
            return {name: _read_array(archive, name, held[name]) for name in wanted}
    except UserError:
        raise
    except MemoryError as error:
        raise source.error("its arrays do not fit into memory.") from error
    except Exception as error:  # of numpy, zipfile, its decompressors and the parser of Python's literals
        what = other_content(path, "zip archive")
        reason = f"it {what}" if what else f"{error!s:.200}" or type(error).__name__
        raise source.error(f"the file cannot be read as .npz ({reason}); {_WRITE_IT}.") from error


def _missing(source: DataSource, missing: list[str], held: dict[str, str]) -> str:
    listed = ", ".join(f"{name:.60}" for name in islice(held, _NAMED)) or "nothing"
    more = f" and {len(held) - _NAMED:,} more" if len(held) > _NAMED else ""
    only_labels = missing == ["labels"]
    no_arrays = held and not any(name.endswith(_SUFFIX) for name in held.values())
    return (
        f"the file must hold the arrays images and labels, but {' and '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing; it holds {listed}{more}."
        f"{' To train without classes give --num-classes 1.' if only_labels and source.option == '--data' else ''}"
        f"{' For images in a zip file unpack it and use --data folder:PATH.' if no_arrays else ''}"
    )


def _read_array(archive: zipfile.ZipFile, name: str, entry: str) -> NDArray[Any]:
    """Read one array, once its header agrees with what there is to read."""
    with archive.open(entry) as file:
        shape, dtype = _read_header(file, name)
        length = archive.getinfo(entry).file_size - file.tell()
    if dtype.hasobject:
        raise ValueError(f"Object arrays cannot be loaded, and {name} holds Python objects")
    if math.prod(shape) * dtype.itemsize != length:
        raise ValueError(
            f"{name} should be of shape {shape!s:.60} and dtype {dtype}, but has {length:,} bytes of values"
        )
    with archive.open(entry) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        # Python's parser warns of literals that make no sense, before it refuses them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):  # of the archive
        raise
    except Exception as error:
        raise ValueError(f"{name} has no header of numpy.save that makes sense") from error
    return shape, dtype


def _checked_images(source: DataSource, images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise source.error(f"images must be of dtype uint8 (0 to 255), but got {images.dtype}.")
    pixels = images[..., None] if images.ndim == 3 else images
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
        turn = ""
        if pixels.ndim == 4 and pixels.shape[1] in (1, 3, 4):
            turn = " The channels come last: images.transpose(0, 2, 3, 1)."
        raise source.error(
            "images must be of shape (number, height, width) or (number, height, width, channels) with 1, 3 or 4 "
            f"channels and at least one image, but got {images.shape}.{turn}"
        )
    return pixels


def _checked_labels(
    source: DataSource, labels: NDArray[Any], count: int, limits: Mapping[str, int | None]
) -> NDArray[np.int64]:
    if labels.ndim == 2 and len(labels) == count and labels.shape[1] > 1:
        raise source.error(
            f"labels must be of shape ({count},), one for each image, but got {labels.shape}; "
            "labels.argmax(1) makes that of one-hot labels."
        )
    if labels.dtype.kind not in "iu":
        raise source.error(f"labels must be integers, but got dtype {labels.dtype}.")
    if labels.shape != (count,):
        raise source.error(f"labels must be of shape ({count},), one for each image, but got {labels.shape}.")
    # More classes than images make no sense; the limit keeps a stray value from naming billions of classes.
    known = {why: limit for why, limit in limits.items() if limit} or {"the number of images": count}
    why, limit = min(known.items(), key=lambda entry: entry[1])
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= limit:
        raise source.error(
            f"labels must be from 0 to {limit - 1} ({why} is {limit}), but they go from {low} to {high}."
        )
    return labels.astype(np.int64)


def _checked_names(source: DataSource, names: NDArray[Any]) -> tuple[str, ...]:
    if names.dtype.kind != "U" or names.ndim != 1 or len(names) == 0:
        got = f"dtype {names.dtype} and shape {names.shape}"
        raise source.error(f"class_names must be text, one name for each class, but got {got}.")
    return tuple(names.tolist())


def _read(source: DataSource, request: ReadRequest) -> ImageSet:
    return image_set_from_arrays(read_npz(source, num_classes=request.num_classes), request.layout)


def _may_be_one(path: str) -> bool:
    return os.path.isfile(path) and not advice_on(path)  # noqa: PTH113 - pathlib's raises for names that are too long


def _shape(source: DataSource, num_classes: int | None) -> DataShape:
    arrays = read_npz(source, num_classes=num_classes)
    return DataShape(1 if arrays.images.shape[-1] == 1 else 3, len(arrays.class_names))


NPZ = SourceKind(
    name="npz",
    summary="two arrays, images and labels, in one NumPy file",
    read=_read,
    shape=_shape,
    side=lambda source: min(read_npz(source, num_classes=1).images.shape[1:3]),
    recognizes=_may_be_one,
    hint="For a file of arrays",
)
