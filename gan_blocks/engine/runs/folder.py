"""The folder of one run: its Config, log, samples, report and checkpoints.

Tested in ``tests/engine/runs/test_folder.py``.
"""

import itertools
import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably, sync_directory, writing
from gan_blocks.engine.base.json_values import (
    is_count,
    is_text,
    read_object,
)
from gan_blocks.engine.runs.checkpoints import (
    Checkpoint,
    list_checkpoints,
    load_latest_checkpoint,
    prune_checkpoints,
    remove_stale_temporaries,
    save_checkpoint,
    step_of,
)
from gan_blocks.engine.runs.config_file import CONFIG_NAME, compare_configs, read_config, write_config
from gan_blocks.engine.runs.identity import RecipeIdentity
from gan_blocks.engine.runs.lock import FolderLock, refuse_links
from gan_blocks.engine.runs.log import append_entry, read_entries, remove_entries
from gan_blocks.engine.runs.weights import check_finite

__all__ = ["CONVERTED", "RunFolder"]

CONVERTED = "converted"  # in the place of the preset, where a run holds converted weights and no training


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_count, value))


_DATA_SHAPE = {
    "source": lambda value: isinstance(value, str),
    "class_names": _are_texts,
    "class_counts": _are_counts,
    **dict.fromkeys(("labels", "pixels", "files"), is_text),
}


@dataclass(frozen=True)
class RunFolder:
    """A run on the disk: made by ``create``, found again by ``open``."""

    path: Path
    recipe: RecipeIdentity
    preset: str

    @classmethod
    def create(
        cls, root: Path, recipe: RecipeIdentity, preset: str, config: Mapping[str, Any], now: datetime
    ) -> "RunFolder":
        """Start a run in ``root/RECIPE-PRESET-TIME``, with a number added when there is one of this name.

        Args:
            root: Where the folder is made; made itself when missing.
            recipe: The recipe that makes the run; its short name goes into the folder's.
            preset: Name of the preset that the Config began with.
            config: The Config as JSON values.
            now: The time of the start, with its time zone.

        Raises:
            UserError: If it cannot be written.
        """
        with writing(root):
            path = _make_named_folder(root, f"{recipe.name}-{preset}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}")
        return cls.create_at(path, recipe, preset, config)

    @classmethod
    def create_at(cls, path: Path, recipe: RecipeIdentity, preset: str, config: Mapping[str, Any]) -> "RunFolder":
        """Start a run in a folder of the caller's choice, made when missing; the arguments are :meth:`create`'s.

        Raises:
            UserError: If the folder holds a run, or what is left of one, or cannot be written.
        """
        for name in (CONFIG_NAME, "checkpoints", "log.jsonl"):
            if (path / name).exists():
                raise UserError(f"{path} cannot take a new run: it already holds {name}. Name another folder.")
        with writing(path / CONFIG_NAME):
            # First of all, so that a folder that holds anything of a run also says which run it is.
            write_config(path, recipe, preset, config)
            (path / "checkpoints").mkdir()
            sync_directory(path)
        return cls(path, recipe, preset)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Find an existing run again.

        Raises:
            UserError: If the folder holds no run.
        """
        if not path.is_dir():
            raise UserError(f"there is no run folder {path}.")
        if not cls.holds_run(path):
            raise UserError(f"{path} is not the folder of a run: it holds no {CONFIG_NAME}.")
        saved = read_config(path / CONFIG_NAME)
        return cls(path, RecipeIdentity.from_dict(saved), saved["preset"])

    def begin_again(self, preset: str, config: Mapping[str, Any]) -> "RunFolder":
        """Give a run that has no checkpoint another Config, and no history: log and pictures are removed.

        Raises:
            UserError: If it cannot be written.
        """
        write_config(self.path, self.recipe, preset, config)
        replace_durably(self.log_path, b"")
        for picture in (*self.all_samples(), self.spectra_path):
            with writing(picture):
                picture.unlink(missing_ok=True)
        return RunFolder(self.path, self.recipe, preset)

    @staticmethod
    def holds_run(path: Path) -> bool:
        """Whether a run was started in this folder."""
        return (path / CONFIG_NAME).is_file()

    def config(self) -> dict[str, Any]:
        """The Config as JSON values.

        Raises:
            UserError: If config.json has been damaged.
        """
        config: dict[str, Any] = read_config(self.path / CONFIG_NAME)["config"]
        return config

    def metadata(self) -> dict[str, Any]:
        """What the weights of this run carry with them: ``recipe``, ``preset`` and ``config``.

        Also ``class_names``, where they are known and are not just the numbers.
        """
        data = self.data() or {"class_names": []}
        names = data["class_names"]
        named = {} if names == list(map(str, range(len(names)))) else {"class_names": names}
        return {**self.recipe.as_dict(), "preset": self.preset, "config": self.config(), **named}

    def data(self) -> dict[str, Any] | None:
        """What was written down of the data of this run; None in runs of earlier versions.

        Raises:
            UserError: If data.json has been damaged.
        """
        if not self.data_path.exists():
            return None
        saved = read_object(self.data_path, _DATA_SHAPE)
        if len(saved["class_names"]) != len(saved["class_counts"]):
            raise UserError(f"{self.data_path} is damaged: it does not give each class one name and one count.")
        return saved

    def write_data(self, record: Mapping[str, Any]) -> None:
        """Write down what the run depends on of its data, unless that stands there already.

        Raises:
            UserError: If it cannot be written.
        """
        text = json.dumps(record, indent=1).encode() + b"\n"
        if self.data() != json.loads(text):
            replace_durably(self.data_path, text)

    @property
    def title(self) -> str:
        """Recipe and preset, for headings."""
        return f"{self.recipe.name}, {self.preset}"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        *,
        keep_last: int,
        keep_every: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the checkpoint of a step; under another name first, then moved into place.

        Args:
            step: Steps done so far.
            tensors: State dicts by part, which is also the name of its file.
            keep_last: How many of the newest checkpoints to keep, at least 1.
            keep_every: Steps divisible by this are kept for good; 0: none.
            metadata: What :meth:`metadata` gave when the session began; None: as it is now.

        Raises:
            UserError: If it cannot be written, or a tensor holds NaN or infinite values; the checkpoints before it are
                whole, and nothing is left of it.
        """
        check_finite(tensors)
        about = self.metadata() if metadata is None else metadata
        return save_checkpoint(self.checkpoints, step, tensors, about, keep_last=keep_last, keep_every=keep_every)

    def newest_checkpoint(self, only: Collection[str] | None = None, *, step: int | None = None) -> Checkpoint:
        """Read the newest checkpoint that is whole and finite, or of its parts only those named.

        Args:
            only: The parts; None: all.
            step: Take the checkpoint of this step or none, so that parts read one after the other belong together.

        Raises:
            UserError: If there is none, and what is wrong with each is said; if it was saved without one of the parts;
                or if one cannot be read just now.
        """
        return load_latest_checkpoint(self.checkpoints, only, finite=True, step=step)

    def check_unchanged(self, checkpoint: Checkpoint) -> None:
        """Check that config.json, which nothing guards, still says what a checkpoint was made with.

        Raises:
            UserError: If it does not.
        """
        remedy = f"{self.path / CONFIG_NAME} was changed since: put it back."
        made_with = checkpoint.metadata
        compare_configs(made_with["config"], self.config(), remedy=remedy)
        if made_with.get("preset") != self.preset:
            raise UserError(f"--preset is {self.preset} here, but the run was started with another. {remedy}")

    def saved_steps(self) -> list[int]:
        """The steps of all checkpoints, damaged ones included, in order."""
        return [step_of(path) for path in list_checkpoints(self.checkpoints)]

    def prune(self) -> None:
        """Remove all checkpoints but the newest, which were kept to be looked at."""
        prune_checkpoints(self.checkpoints)

    def begin_to_write(self) -> FolderLock:
        """Take the folder for this process, and clear away what a killed one left half done.

        Returns:
            The lock, to be kept as long as there is something to write, and closed then.

        Raises:
            UserError: If another process holds it, or something in it is a link.
        """
        refuse_links(self.path)
        lock = FolderLock(self.path)
        remove_stale_temporaries(self.checkpoints)
        return lock

    @property
    def data_path(self) -> Path:
        """Classes and digests of the images that the run learns from."""
        return self.path / "data.json"

    @property
    def log_path(self) -> Path:
        """The log: one JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def report_path(self) -> Path:
        """The report, made from the files of this folder."""
        return self.path / "report.html"

    @property
    def spectra_path(self) -> Path:
        """The picture of the spectra, drawn from the log when they are measured."""
        return self.path / "spectra.png"

    @property
    def evaluation_path(self) -> Path:
        """The newest evaluation's figures."""
        return self.path / "evaluation.json"

    def samples_path(self, step: int) -> Path:
        """Where the samples drawn at a step go; their folder is made when missing."""
        path = self.path / "samples" / f"step_{step:06d}.png"
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        return path

    def newest_samples(self) -> Path | None:
        """The sample sheet of the latest step, if there is one."""
        return next(reversed(self.all_samples()), None)

    def all_samples(self) -> list[Path]:
        """All sample sheets, in the order of their steps."""
        found = [path for path in self.path.glob("samples/step_*.png") if re.fullmatch(r"step_\d+", path.stem)]
        return sorted(found, key=step_of)

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """Add one line to the log, at once.

        Raises:
            UserError: If it cannot be written.
        """
        append_entry(self.log_path, entry)

    def read_log(self) -> list[dict[str, Any]]:
        """All entries of the log; a last line that is still being written, or was when the run died, is left out.

        Raises:
            UserError: If another line is damaged.
        """
        return read_entries(self.log_path)

    def trained_seconds(self) -> float:
        """Seconds of training up to the newest checkpoint that the log knows of, over all sessions.

        Raises:
            UserError: If a line of the log is damaged.
        """
        seconds = [entry["seconds"] for entry in self.read_log() if entry.get("event") == "checkpoint"]
        return float(seconds[-1]) if seconds else 0.0

    def truncate_log(self, after_step: int) -> None:
        """Remove what the log says of steps beyond a checkpoint, and damaged lines, before continuing from it.

        Entries without a ``step`` stay.

        Raises:
            UserError: If it cannot be written.
        """
        remove_entries(self.log_path, after_step=after_step)


def _make_named_folder(root: Path, name: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = root / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            path.mkdir()
            break
    return path
