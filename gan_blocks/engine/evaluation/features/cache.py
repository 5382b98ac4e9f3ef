"""What is known of real images, kept by their content: features, classifiers and figures, in a folder of the user's.

A key is a digest of all that an entry depends on; an entry that is damaged is made again. Where the folder cannot be
written, that is said once, and nothing is kept.

Tested in ``tests/engine/evaluation/features/test_kept_features.py``.
"""

import hashlib
import json
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from gan_blocks import Rows
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import open_regular, read_regular, replace_durably, replacing
from gan_blocks.engine.base.json_values import is_number
from gan_blocks.engine.evaluation.features.network import FeatureNetwork
from gan_blocks.engine.evaluation.features.rows import computed_rows
from gan_blocks.engine.evaluation.image_rows import StoredImages, in_batches

__all__ = ["MEASURED_ANEW", "Cache", "RealFigures", "digest_of_images", "digest_of_tensors"]

VERSION = 1  # of what is computed: a change of the preparation of images needs another
CHECKED_AT_ONCE = 4096  # rows


def digest_of_images(images: Rows) -> str:
    """Of all pixels in their order, with the 256 levels of a file, and of their shape."""
    digest = hashlib.sha256(str(tuple(images.shape)).encode())
    for batch in in_batches(images, 256):
        levels = ((batch.clamp(-1, 1) + 1) * 127.5).round().byte()
        digest.update(levels.contiguous().numpy().data)
    return digest.hexdigest()


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Of names and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


class Cache:
    """Entries in a folder.

    Args:
        folder: Made when something is kept; None: nothing is.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.found: list[str] = []
        """Names of the files that were taken instead of being made."""

    def rows(self, network: FeatureNetwork, images: Rows, images_digest: str) -> Rows | None:
        """What the network gives for the images, in a file that is kept; None where it cannot be.

        Raises:
            UserError: If a feature is not finite.
        """
        if self.folder is None or not network.digest:
            return None
        path = self._path(f"features-{network.name}", network.digest, images_digest)
        if (kept := _kept_rows(path, len(images))) is not None:
            self._note(path)
            return kept
        batches = computed_rows(network, images)
        first = next(batches)
        header = _header(len(images), first[1].shape[1])

        def write() -> None:
            with replacing(path, needed=len(header) + 4 * len(images) * first[1].shape[1]) as file:
                file.write(header + first[1].contiguous().numpy().tobytes())
                for _, rows in batches:
                    file.write(rows.contiguous().numpy().tobytes())

        self._keep(write)
        return _kept_rows(path, len(images))

    def tensors(self, name: str, key: tuple[object, ...], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors that are a function of the key."""
        if self.folder is None:
            return make()
        path = self._path(name, *key, suffix=".safetensors")
        with suppress(OSError, SafetensorError):
            kept = load(read_regular(path))
            if all(tensor.isfinite().all() for tensor in kept.values()):
                self._note(path)
                return kept
        made = make()
        self._keep(lambda: replace_durably(path, save({each: tensor.contiguous() for each, tensor in made.items()})))
        return made

    def values(self, name: str, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        """Figures that are a function of the key: a number, None, or a list of these."""
        if self.folder is None:
            return make()
        path = self._path(name, *key, suffix=".json")
        with suppress(OSError, ValueError):
            kept = json.loads(read_regular(path))
            if _is_figure(kept):
                self._note(path)
                return kept
        made = make()
        self._keep(lambda: replace_durably(path, json.dumps(made).encode()))
        return made

    def _path(self, name: str, *key: object, suffix: str = ".safetensors") -> Path:
        assert self.folder is not None
        digest = hashlib.sha256(repr((VERSION, *key)).encode()).hexdigest()[:24]
        return self.folder / f"{name}-{digest}{suffix}"

    def _note(self, path: Path) -> None:
        self.found.append(path.name)

    def _keep(self, write: Callable[[], None]) -> None:
        """Write, unless the disk refuses it: figures can do without what is kept of them."""
        try:
            write()
        except UserError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            print(f"Nothing is kept of the real images: {error}")
            self.folder = None


@dataclass(frozen=True, eq=False)
class RealFigures:
    """Figures of the real images alone, which no sample changes: measured once where there is a cache.

    Attributes:
        cache: Where they are kept.
        content: Gives the digests of the real images, which take time and are asked for only where something is kept.
    """

    cache: Cache
    content: Callable[[], tuple[str, ...]]

    def __call__(self, name: str, settings: tuple[object, ...], measure: Callable[[], Any]) -> Any:
        """What ``measure`` gives, or gave before for the same images: a number, None, or a list of these.

        Args:
            name: Of the figure.
            settings: All that it depends on beside the real images and their classes, such as a seed.
            measure: Makes it.
        """
        if self.cache.folder is None:
            return measure()
        return self.cache.values(name, (*settings, *self.content()), measure)


MEASURED_ANEW = RealFigures(Cache(None), tuple)
"""Keeps nothing."""


def _is_figure(kept: object) -> bool:
    values = kept if isinstance(kept, list) else [kept]
    return all(value is None or is_number(value) for value in values)


class _KeptRows(StoredImages):
    """Rows in a file of safetensors."""

    def __init__(self, path: Path, shape: tuple[int, int], start: int) -> None:
        self.shape = torch.Size(shape)
        self._bytes, self._start = 4 * shape[1], start
        self._file = open_regular(path)
        weakref.finalize(self, self._file.close)


def _header(count: int, width: int) -> bytes:
    entry = {"dtype": "F32", "shape": [count, width], "data_offsets": [0, 4 * count * width]}
    text = json.dumps({"rows": entry}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _kept_rows(path: Path, count: int) -> _KeptRows | None:
    """The rows in a file, unless it is missing, damaged or holds others."""
    try:
        with safe_open(path, framework="pt") as file:
            shape = file.get_slice("rows").get_shape()
    except (OSError, SafetensorError):
        return None
    if len(shape) != 2 or shape[0] != count:
        return None
    rows = _KeptRows(path, (shape[0], shape[1]), len(_header(*shape)))
    return rows if all(some.isfinite().all() for some in in_batches(rows, CHECKED_AT_ONCE)) else None
