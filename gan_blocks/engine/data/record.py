"""What a run depends on of its data, in a few lines of JSON: enough to tell if they are still the same.

Tested in ``tests/engine/data/test_record.py``.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.data.image_set import ImageSet

__all__ = ["DataRecord", "changes", "record_of", "unlike"]

_LOOKED_AT = 64  # images, of which all pixels are compared

_NAMES = 10


@dataclass(frozen=True)
class DataRecord:
    """The classes of a set of images, and digests that tell it from another.

    Attributes:
        source: Where the images were when they were last read, as ``--data`` names it, with an absolute path.
        class_names: One name a class.
        class_counts: Images of each class.
        labels: Digest of the labels of all images, in their order.
        pixels: Digest of all pixels of 64 images that the seed chooses.
        files: Digest of the names and sizes of all files; empty for sources of one file.
    """

    source: str
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    labels: str
    pixels: str
    files: str

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(self.class_counts)

    @property
    def digest(self) -> str:
        """One for all that :func:`changes` compares."""
        parts = (self.class_names, self.class_counts, self.labels, self.pixels)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """JSON values; :meth:`from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "DataRecord":
        """Read what :meth:`as_dict` gave, as JSON gives it back."""
        values: dict[str, Any] = {one.name: saved[one.name] for one in fields(cls)}
        values |= {name: tuple(values[name]) for name in ("class_names", "class_counts")}
        return cls(**values)

    def listed_classes(self) -> str | None:
        """Number, name and count of the first classes, for the user; None if the names are but the numbers."""
        if self.class_names == tuple(map(str, range(len(self.class_names)))) or len(self.class_names) == 1:
            return None
        named = zip(self.class_names, self.class_counts, strict=True)
        listed = [f"{number} = {name} ({count:,})" for number, (name, count) in enumerate(named)]
        more = f" and {len(listed) - _NAMES:,} more" if len(listed) > _NAMES else ""
        return f"classes (and their images): {', '.join(listed[:_NAMES])}{more}"


def record_of(images: ImageSet, source: str, *, seed: int) -> DataRecord:
    """Make the record of a set that is not mirrored; it reads at most 64 images."""
    chosen = torch.randperm(len(images), generator=random_stream(seed, "data record"))[:_LOOKED_AT]
    return DataRecord(
        source=source,
        class_names=images.class_names,
        class_counts=tuple(torch.bincount(images.labels, minlength=images.num_classes).tolist()),
        labels=_digest(images.labels),
        pixels=_digest(images.read_pixels(chosen)),
        files=images.files,
    )


def changes(then: DataRecord, now: DataRecord) -> str | None:
    """What has become of the data of a run that makes it another training; None where nothing has.

    Names and sizes of files alone do not: a store made from a folder holds the same images.
    """
    if then.class_names != now.class_names:
        return _changed_classes(then.class_names, now.class_names)
    if then.class_counts != now.class_counts:
        counts = zip(then.class_names, then.class_counts, now.class_counts, strict=True)
        name, before, after = next(each for each in counts if each[1] != each[2])
        return f"the class {name} had {before:,} images, and has {after:,} now"
    if then.labels != now.labels:
        return "the labels come in another order now"
    if then.pixels != now.pixels:
        return "there are other images now, or in another order: the pixels of those that were looked at differ"
    return None


def unlike(everyone: list[DataRecord]) -> str | None:
    """In what the data of a process differ from those of rank 0, down to the names of their files; None: in nothing."""
    first = everyone[0]
    for rank, record in enumerate(everyone):
        for what, ours, theirs in (
            ("the classes", first.class_names, record.class_names),
            ("the numbers of images", first.class_counts, record.class_counts),
            ("the labels", first.labels, record.labels),
            ("the names and sizes of the files", first.files, record.files),
            ("the pixels of the images that were looked at", first.pixels, record.pixels),
        ):
            if ours != theirs:
                return f"{what} of rank {rank} differ from those of rank 0"
    return None


def _changed_classes(then: tuple[str, ...], now: tuple[str, ...]) -> str:
    gone = [name for name in then if name not in now]
    new = [name for name in now if name not in then]
    if not gone and not new:
        return "the classes come in another order now"
    words = [f"{', '.join(names[:3])} {rest}" for names, rest in ((gone, "is gone"), (new, "is new")) if names]
    return f"the classes are others now: {' and '.join(words)}"


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().data).hexdigest()[:16]
