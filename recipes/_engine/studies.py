"""Studies: several runs and what is measured of them, from one command that goes on where it stopped.

A study has one folder: ``study.json`` with its settings and what has been measured, and a run folder for each run.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes._engine.checkpoints import list_checkpoints
from recipes._engine.durable_files import replace_durably, writing_error
from recipes._engine.errors import UserError
from recipes._engine.loop import train
from recipes._engine.run_folder import RunFolder

__all__ = ["Result", "Study", "StudyStoppedError", "markdown_table", "mean_and_deviation", "train_for", "train_run"]

NO_LAST_STEP = 10**9  # for a run that the clock ends

Result = Mapping[str, Any]


class StudyStoppedError(Exception):
    """A run of the study was stopped or has failed, and has said so; its first argument is the exit status."""


class Study:
    """The runs and results of one study.

    Args:
        folder: Where all of it is; made when missing.
        settings: What the results depend on, as JSON values. They are fixed once the study has begun.

    Raises:
        UserError: If the folder holds another study, or cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._path = folder / "study.json"
        settings = json.loads(json.dumps(settings))  # so that tuples equal the lists they are saved as
        self.results: dict[str, Result] = {}
        if self._path.is_file():
            saved = self._read()
            for name, value in settings.items():
                if saved["settings"].get(name) != value:
                    was = saved["settings"].get(name)
                    raise UserError(f"{folder} holds a study with {name} {was}, not {value}. Name another folder.")
            self.results = saved["results"]
        self._settings = settings

    def train(self, name: str, recipe: str, args: Sequence[str], *, steps: int) -> Path:
        """Train a run, or what is missing of it, and return its folder.

        Args:
            name: The run's folder within the study's.
            recipe: Name of the training recipe.
            args: Its options, as on the command line, without ``--steps`` and ``--run-dir``.
            steps: Length of the run.

        Raises:
            StudyStoppedError: As :func:`train_run`.
        """
        run = self.folder / name
        train_run(run, recipe, args, steps=steps)
        return run

    def result(self, key: str, measure: Callable[[], Result]) -> Result:
        """What has been measured under ``key``, or else is measured now and kept.

        Raises:
            UserError: If it cannot be written.
        """
        if key not in self.results:
            self.keep(key, measure())
        return self.results[key]

    def keep(self, key: str, result: Result) -> None:
        """Write down what has been measured under ``key``.

        Raises:
            UserError: If it cannot be written.
        """
        self.results[key] = result
        self._write()

    def _read(self) -> dict[str, Any]:
        try:
            saved: dict[str, Any] = json.loads(self._path.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(f"{self._path} is damaged: {error}.") from None
        if not saved.keys() >= {"settings", "results"}:
            raise UserError(f"{self._path} is damaged: it does not hold settings and results.")
        return saved

    def _write(self) -> None:
        saved = {"settings": self._settings, "results": self.results}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_durably(self._path, json.dumps(saved, indent=2).encode() + b"\n")
        except OSError as error:
            raise writing_error(self._path, error) from error


def train_run(run: Path, recipe: str, args: Sequence[str], *, steps: int) -> None:
    """Train a run in the folder ``run``, or what is missing of it.

    Args:
        run: The run's folder.
        recipe: Name of the training recipe.
        args: Its options, as on the command line, without ``--steps`` and ``--run-dir``.
        steps: Length of the run.

    Raises:
        StudyStoppedError: If it does not reach its last step: by a signal, or an error that it has printed.
    """
    if (run / "checkpoints" / f"step_{steps:06d}") not in list_checkpoints(run / "checkpoints"):
        status = train(recipe, [*args, "--steps", str(steps), "--run-dir", str(run)])
        if status:
            raise StudyStoppedError(status)


def train_for(run: Path, recipe: str, args: Sequence[str], *, minutes: float) -> None:
    """Train a run in the folder ``run`` for so long by the clock, over all sessions, or what is missing of it.

    The time after the newest checkpoint of a run that was killed does not count, nor do its steps.

    Args:
        run: The run's folder.
        recipe: Name of the training recipe.
        args: Its options, as on the command line, without ``--steps``, ``--minutes`` and ``--run-dir``.
        minutes: How long, without the loading of data and the drawing of the last sheet.

    Raises:
        StudyStoppedError: If it ends before: by a signal, or an error that it has printed.
    """
    begun = bool(list_checkpoints(run / "checkpoints"))
    left = 60 * minutes - (RunFolder.open(run).trained_seconds() if begun else 0.0)
    if left > 0:
        budget = ["--steps", str(NO_LAST_STEP), "--minutes", repr(left / 60)]
        status = train(recipe, [*args, *budget, "--run-dir", str(run)])
        if status:
            raise StudyStoppedError(status)


def mean_and_deviation(values: Sequence[float], form: str) -> str:
    """``mean (standard deviation)`` in a number format; of a single value there is no deviation."""
    mean = format(statistics.fmean(values), form)
    return f"{mean} ({statistics.stdev(values):{form}})" if len(values) > 1 else mean


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for Markdown, one line a row."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])
