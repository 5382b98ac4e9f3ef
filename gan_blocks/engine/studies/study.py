"""Studies: several runs and what is measured of them, from one command that continues where it stopped.

A study has one folder: ``study.json`` with its settings and what has been measured, and a run folder for each run.

Tested in ``tests/recipes/studies/test_latents.py``.
"""

import json
import statistics
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably, writing
from gan_blocks.engine.base.json_values import is_object, read_object
from gan_blocks.engine.base.parallel.workers import run_tasks
from gan_blocks.engine.base.terminal.command_line import parse_options, run_command
from gan_blocks.engine.base.terminal.console import Progress
from gan_blocks.engine.recipe.next_steps import print_next_steps, same_command
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.runs.lock import FolderLock
from gan_blocks.engine.studies.runs import StudyStoppedError, train_run

__all__ = [
    "Result",
    "Study",
    "StudyTask",
    "carry_out_side_by_side",
    "markdown_table",
    "mean_and_deviation",
    "print_continuation",
    "study_command",
]

Result = Mapping[str, Any]
"""What a task of a study came to: figures by name, as its file of results holds them."""

Options = TypeVar("Options")


class StudyTask(ABC):
    """A run of a study of which several are trained at a time."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The study's folder."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the run's folder and of its result."""

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / self.name

    @property
    def console(self) -> Path:
        """What the training says, which would mix with that of the other processes."""
        return self.folder / f"{self.name}.txt"


SomeTask = TypeVar("SomeTask", bound=StudyTask)


class Study:
    """The runs and results of one study.

    Args:
        folder: Where all of it is; made when missing.
        settings: What the results depend on, as JSON values. They are fixed once the study has begun.

    Raises:
        UserError: If the folder holds another study, another process carries it out, or it cannot be written.
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
                    option = f"--{name.replace('_', '-')}"
                    raise UserError(f"{folder} holds a study with {option} {was}, not {value}. Name another folder.")
            self.results = saved["results"]
        elif (folder / "config.json").is_file():
            raise UserError(f"{folder} holds a training run, not a study. Name another folder.")
        self._settings = settings
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(folder)  # as long as there is a study: a second one would train the same runs
        if not self._path.is_file():
            self._write()  # before the first run, whose options they are

    def train(self, name: str, recipe: Recipe[Any], args: Sequence[str], *, steps: int) -> Path:
        """Train a run, or what is missing of it, and return its folder.

        Args:
            name: The run's folder within the study's.
            recipe: The training recipe.
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
        """Write down what has been measured under ``key``, or else print it, since it may have taken long.

        Raises:
            UserError: If it cannot be written.
        """
        self.results[key] = result
        try:
            self._write()
        except UserError:
            print(json.dumps({key: result}), flush=True)
            raise

    def _read(self) -> dict[str, Any]:
        return read_object(self._path, {"settings": is_object, "results": is_object})

    def _write(self) -> None:
        saved = {"settings": self._settings, "results": self.results}
        replace_durably(self._path, json.dumps(saved, indent=2).encode() + b"\n")


def study_command(
    prog: str,
    kind: type[Options],
    carry_out: Callable[[Options], Path],
    *,
    about: str | None,
    args: Sequence[str] | None,
) -> int:
    """The body of a study's command: carry a study out and print its table; returns the exit status.

    Args:
        prog: How the command is typed, such as ``python -m recipes.studies.latents``.
        kind: Its options.
        carry_out: Does what is missing, and returns the folder that holds ``table.md``.
        about: What ``--help`` says first.
        args: The command line, or None for that of this process.
    """

    def command() -> int:
        options = parse_options(kind, prog=prog, description=about or "", args=args)
        try:
            folder = carry_out(options)
        except StudyStoppedError as stop:
            status: int = stop.args[0]
            if status > 128:
                print_continuation(prog, args)
            return status
        print((folder / "table.md").read_text(), end="")
        return 0

    return run_command(prog.rpartition(".")[2], command)


def print_continuation(prog: str, args: Sequence[str] | None) -> None:
    """Print the command line that continues what a signal has stopped: the same one."""
    print_next_steps({"continue": same_command(prog, args)})


def carry_out_side_by_side(
    study: Study,
    tasks: Sequence[SomeTask],
    work: Callable[[SomeTask], Result | None],
    *,
    processes: int,
    kept: Callable[[SomeTask, Result], str],
) -> None:
    """Do the tasks that have no result yet, several at a time, and keep each result when it is there.

    Args:
        study: Where results are kept, by the names of the tasks.
        tasks: All of the study, in the order in which they begin.
        work: Trains and measures; None if the training failed. For several processes a function of a module.
        processes: How many work at a time; the results do not depend on it.
        kept: Called after each result is kept, such as to renew a table; returns what to say of it.

    Raises:
        UserError: If some failed; the others are done first.
        StudyStoppedError: If a training was stopped by a signal.
    """
    missing = [task for task in tasks if task.name not in study.results]
    if missing:
        tqdm.write(f"What the runs say is in {study.folder}: {missing[0].console.name}, ...", file=sys.stderr)
    failed: list[SomeTask] = []
    with Progress(
        total=len(tasks), initial=len(tasks) - len(missing), unit="run", desc="study", smoothing=0
    ) as progress:
        for task, result in run_tasks(work, missing, processes=processes):
            if result is None:
                failed.append(task)
                tqdm.write(f"{task.name} has failed: see {task.console}", file=sys.stderr)
                continue
            study.keep(task.name, result)
            tqdm.write(f"{task.name}: {kept(task, result)}", file=sys.stderr)
            progress.update()
    if failed:
        shown = ", ".join(str(task.console) for task in failed)
        raise UserError(f"{len(failed)} of {len(tasks)} runs have failed; what they said is in {shown}.")


def mean_and_deviation(values: Sequence[float], form: str) -> str:
    """``mean (standard deviation)`` in a number format; of a single value there is no deviation."""
    mean = format(statistics.fmean(values), form)
    return f"{mean} ({statistics.stdev(values):{form}})" if len(values) > 1 else mean


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for Markdown, one line a row."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])
