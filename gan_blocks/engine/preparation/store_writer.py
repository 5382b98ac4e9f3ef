"""Writing a store of shards so that it can be stopped or killed at any moment and continued.

A store is made part by part: a part is the same images at each resolution, one shard each. While the store is not
whole, the folder ``unfinished`` in it holds what it is made from, and a record of each part that is on the disk. The
index comes last. Continued, it becomes the same bytes as a store that was never interrupted.

Tested in ``tests/engine/commands/test_prepare.py``.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gan_blocks.engine.base.contents import check_regular
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import read_regular, replace_durably, sync_directory
from gan_blocks.engine.base.json_values import DamagedJsonError, is_list_of, is_object, parse_object
from gan_blocks.engine.base.parallel.threads import map_in_threads
from gan_blocks.engine.data.kinds.folder import check_damage, damage_notes
from gan_blocks.engine.data.pixels import ImageFacts, PixelLayout, conversion_notes
from gan_blocks.engine.data.shards.format import INDEX_NAME, ShardFile, StoreIndex, shard_name
from gan_blocks.engine.data.shards.writer import ShardWriter
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.preparation.store_source import DamagedFile, PreparedImage, StoreSource
from gan_blocks.engine.runs.lock import FolderLock

__all__ = ["CONTINUES", "UNFINISHED", "StoreWriter", "check_made_from"]

UNFINISHED = "unfinished"
CONTINUES = "Run the same command again to continue."


_SHAPE = {"labels": is_list_of(int), "damaged": is_object, "facts": is_list_of(list), "shards": is_list_of(dict)}


@dataclass
class _Part:
    """What is known of a part when its shards are written."""

    labels: list[int] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    facts: Counter[ImageFacts] = field(default_factory=Counter)
    shards: list[ShardFile] = field(default_factory=list)

    def encode(self) -> bytes:
        return json.dumps({**asdict(self), "facts": [[*fact, count] for fact, count in self.facts.items()]}).encode()

    @classmethod
    def decode(cls, data: bytes) -> "_Part":
        values = parse_object(data, _SHAPE)
        facts = Counter[ImageFacts]()
        for mode, enlarged, turned, *cropped, count in values["facts"]:
            known = cropped[0] if cropped else None  # earlier versions did not look
            facts[ImageFacts(str(mode), bool(enlarged), bool(turned), known)] += int(count)
        return cls(values["labels"], values["damaged"], facts, list(map(ShardFile.from_json, values["shards"])))


class StoreWriter:
    """Writes the parts of a store that are not there yet.

    Args:
        folder: The store; made when missing.
        source: Where the images come from, for messages.
        images: The images.
        layouts: Resolutions and channels, the largest resolution first.
        shard_images: Images in each shard but the last; damaged ones count, too.
        made_from: The source and the options; a store can be continued with equal ones only.

    Raises:
        UserError: If the folder holds something else.
        OSError: If it cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        source: DataSource,
        images: StoreSource,
        layouts: Sequence[PixelLayout],
        *,
        shard_images: int,
        made_from: Mapping[str, Any],
    ) -> None:
        self._folder, self._source, self._images, self._layouts = folder, source, images, layouts
        self._made_from = dict(made_from)
        count = len(images.labels)
        self._numbers = [range(start, min(start + shard_images, count)) for start in range(0, count, shard_images)]
        self._unfinished = folder / UNFINISHED
        self._begin()
        self._parts = {number: part for number in range(self.count) if (part := self._recorded(number)) is not None}

    @property
    def count(self) -> int:
        """How many parts the store has."""
        return len(self._numbers)

    @property
    def done(self) -> int:
        """How many of them are on the disk."""
        return len(self._parts)

    def write(self, *, threads: int | None = None) -> StoreIndex:
        """Write the missing parts and the index.

        Raises:
            UserError: If more than 1 % of the images are damaged, or another process writes into the folder.
            OSError: If the disk is full, or the like: also as a UserError. What is written stays.
        """
        with closing(FolderLock(self._unfinished)):
            index = self._write(threads)
        shutil.rmtree(self._unfinished)
        return index

    def _write(self, threads: int | None) -> StoreIndex:
        missing = [number for number in range(self.count) if number not in self._parts]
        images = [image for number in missing for image in self._numbers[number]]
        read = map_in_threads(self._images.read, images, description="preparing images", threads=threads)
        with closing(read) as results:
            for number in missing:
                self._parts[number] = self._write_part(number, results)
        # At the end: all damage is named at once, and what was whole is not made again.
        check_damage(self._source, self._all_damaged(), len(self._images.labels))
        index = self._index()
        replace_durably(self._folder / INDEX_NAME, index.encode(), remedy=CONTINUES)
        return index

    def _begin(self) -> None:
        """Write down what the store is made from, or compare with what was written down."""
        plan = self._unfinished / "made_from.json"
        if plan.exists():
            check_regular(plan)
            try:
                begun = parse_object(plan.read_bytes(), {})
            except DamagedJsonError:
                raise UserError(f"{plan} is garbled; remove {self._folder} and start again.") from None
            check_made_from(self._folder, begun, self._made_from)
            return
        if self._folder.exists() and any(entry != self._unfinished for entry in self._folder.iterdir()):
            raise UserError(f"--out {self._folder} is neither empty nor the beginning of a store; name another folder.")
        replace_durably(plan, json.dumps(self._made_from).encode(), remedy=CONTINUES)
        sync_directory(self._folder)

    def _recorded(self, number: int) -> _Part | None:
        """A part that needs not be written again: its shards are there, and no file was damaged that may be fixed."""
        try:
            part = _Part.decode(read_regular(self._record(number)))
            whole = all((self._folder / shard.name).stat().st_size == shard.bytes for shard in part.shards)
        except (OSError, ValueError, TypeError):
            return None
        of_this = [shard.name for shard in part.shards] == self._names(number) and part.labels == self._labels(number)
        return part if whole and of_this else None

    def _names(self, number: int) -> list[str]:
        """The shard of a part at each resolution."""
        return [f"{layout.resolution}/{shard_name(number)}" for layout in self._layouts]

    def _labels(self, number: int) -> list[int]:
        return [self._images.labels[image] for image in self._numbers[number]]

    def _record(self, number: int) -> Path:
        return self._unfinished / f"part_{number:05}.json"

    def _write_part(self, number: int, results: Iterator[PreparedImage | DamagedFile]) -> _Part:
        part = _Part()
        with ExitStack() as stack:
            writers = [
                stack.enter_context(ShardWriter(self._folder, name, layout))
                for name, layout in zip(self._names(number), self._layouts, strict=True)
            ]
            for image in self._numbers[number]:
                result = next(results)
                if isinstance(result, DamagedFile):
                    part.damaged[result.path] = result.reason
                    continue
                for writer, pixels in zip(writers, result.pixels, strict=True):
                    writer.add(pixels)
                part.labels.append(self._images.labels[image])
                if result.facts is not None:
                    part.facts[result.facts] += 1
            part.shards = [writer.finish() for writer in writers]
        replace_durably(self._record(number), part.encode(), remedy=CONTINUES)
        return part

    def _all_damaged(self) -> dict[str, str]:
        return {path: reason for part in self._parts.values() for path, reason in part.damaged.items()}

    def _index(self) -> StoreIndex:
        parts = [self._parts[number] for number in range(self.count)]
        facts: Counter[ImageFacts] = Counter()
        for part in parts:
            facts += part.facts
        layout = self._layouts[0]
        damage = damage_notes(self._all_damaged(), len(self._images.labels))
        return StoreIndex(
            channels=layout.channels,
            class_names=self._images.class_names,
            labels=[label for part in parts for label in part.labels],
            images=tuple(len(part.labels) for part in parts),
            shards={
                size.resolution: tuple(part.shards[place] for part in parts) for place, size in enumerate(self._layouts)
            },
            notes=(*self._images.notes, *conversion_notes(facts, layout), *damage),
            made_from=self._made_from,
        )


def check_made_from(folder: Path, begun: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to continue a store with other images or options than it was begun with.

    Raises:
        UserError: If anything differs; it names the first.
    """
    for name, value in asked.items():
        if begun.get(name) != value:
            if name == "fingerprint":
                what = "was begun with other images or landmarks: files were added, removed, renamed or edited since"
            else:
                what = f"was begun with {_words(name, begun.get(name))}, not {_words(name, value)}"
            raise UserError(f"the store {folder} {what}; name another --out, or remove that folder.")


def _words(name: str, value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"--{name.replace('_', '-')} {text}"
