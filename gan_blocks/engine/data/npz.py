"""The source of a user's own arrays in one .npz file.

Tested in ``tests/engine/data/test_arrays.py``.
"""

import os.path
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_blocks.engine.data.arrays import LabeledArrays, image_set_from_arrays
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import DataShape, ReadRequest, SourceKind

__all__ = ["NPZ", "read_npz"]


def read_npz(source: DataSource, *, num_classes: int | None) -> LabeledArrays:
    """Read the arrays ``images`` and ``labels``; classes are named by their numbers.

    Args:
        source: The source, with the path of the file.
        num_classes: Number of classes that the labels may have, if that is known.

    Raises:
        UserError: If the file is missing or damaged, lacks an array, or an array has a wrong dtype, shape or value.
    """
    arrays = _read_arrays(source)
    images = _checked_images(source, arrays["images"])
    labels = _checked_labels(source, arrays["labels"], len(images), num_classes)
    names = tuple(str(number) for number in range(labels.max() + 1))
    return LabeledArrays(images, labels, names)


def _read_arrays(source: DataSource) -> dict[str, NDArray[Any]]:
    path = source.existing_path()
    try:
        # numpy leaves a file that it opened itself open when the archive is damaged.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is not an .npz archive")
            if missing := [name for name in ("images", "labels") if name not in archive.files]:
                raise source.error(
                    f"the file must hold the arrays images and labels, but {' and '.join(missing)} "
                    f"{'is' if len(missing) == 1 else 'are'} missing; it holds {', '.join(archive.files) or 'nothing'}."
                )
            return {name: archive[name] for name in ("images", "labels")}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise source.error(
            f"the file cannot be read as .npz ({error}); write it with numpy.savez(PATH, images=..., labels=...)."
        ) from error


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


def _checked_labels(source: DataSource, labels: NDArray[Any], count: int, num_classes: int | None) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu":
        raise source.error(f"labels must be integers, but got dtype {labels.dtype}.")
    if labels.shape != (count,):
        raise source.error(f"labels must be of shape ({count},), one for each image, but got {labels.shape}.")
    # More classes than images make no sense; the limit keeps a stray value from naming billions of classes.
    limit = count if num_classes is None else num_classes
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= limit:
        why = "the number of images" if num_classes is None else "--num-classes"
        raise source.error(
            f"labels must be from 0 to {limit - 1} ({why} is {limit}), but they go from {low} to {high}."
        )
    return labels.astype(np.int64)


def _read(source: DataSource, request: ReadRequest) -> ImageSet:
    classes = None if request.num_classes == 1 else request.num_classes
    return image_set_from_arrays(read_npz(source, num_classes=classes), request.layout)


def _shape(source: DataSource, num_classes: int | None) -> DataShape:
    arrays = read_npz(source, num_classes=None if num_classes == 1 else num_classes)
    return DataShape(1 if arrays.images.shape[-1] == 1 else 3, len(arrays.class_names))


NPZ = SourceKind(
    name="npz",
    summary="two arrays, images and labels, in one NumPy file",
    read=_read,
    shape=_shape,
    recognizes=os.path.isfile,  # pathlib's raises for names that are too long
    hint="For a file of arrays",
)
