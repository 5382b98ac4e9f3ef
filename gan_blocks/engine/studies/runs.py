"""The runs of a study: trained like any other, by the steps or by the clock, and continued where they stopped.

Tested in ``tests/recipes/studies/test_top_k.py``.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.runs.checkpoints import list_checkpoints
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.training.command import parse_training_command

__all__ = ["StudyStoppedError", "train_for", "train_ok", "train_quietly", "train_run"]

NO_LAST_STEP = 10**9  # for a run that the clock ends


class StudyStoppedError(Exception):
    """A run of the study was stopped or has failed, and has said so; its first argument is the exit status."""


def train_run(run: Path, recipe: Recipe[Any], args: Sequence[str], *, steps: int) -> None:
    """Train a run in the folder ``run``, or what is missing of it.

    Args:
        run: The run's folder.
        recipe: The training recipe.
        args: Its options, as on the command line, without ``--steps`` and ``--run-dir``.
        steps: Length of the run.

    Raises:
        StudyStoppedError: If it does not reach its last step: by a signal, or an error that it has printed.
        UserError: If it is there, but is a run of other options.
    """
    newest = RunFolder.open(run).newest_checkpoint() if list_checkpoints(run / "checkpoints") else None
    args = [*args, "--steps", str(steps), "--run-dir", str(run)]
    if newest is not None and newest.step >= steps:
        parse_training_command(recipe, prog="", args=args)
    elif status := recipe.main(args, prog=""):
        raise StudyStoppedError(status)


def train_for(run: Path, recipe: Recipe[Any], args: Sequence[str], *, minutes: float) -> None:
    """Train a run in the folder ``run`` for so long by the clock, over all sessions, or what is missing of it.

    The time after the newest checkpoint of a run that was killed does not count, nor do its steps.

    Args:
        run: The run's folder.
        recipe: The training recipe.
        args: Its options, as on the command line, without ``--steps``, ``--minutes`` and ``--run-dir``.
        minutes: How long, without the loading of data and the drawing of the last sheet.

    Raises:
        StudyStoppedError: If it ends before: by a signal, or an error that it has printed.
    """
    begun = bool(list_checkpoints(run / "checkpoints"))
    left = 60 * minutes - (RunFolder.open(run).trained_seconds() if begun else 0.0)
    if left > 0:
        budget = ["--steps", str(NO_LAST_STEP), "--minutes", repr(left / 60)]
        status = recipe.main([*args, *budget, "--run-dir", str(run)], prog="")
        if status:
            raise StudyStoppedError(status)


def train_quietly(console: Path, training: Callable[[], None]) -> bool:
    """As :func:`train_ok`, where what is said goes to the end of a file."""
    with console.open("a") as file, contextlib.redirect_stderr(file):
        return train_ok(training)


def train_ok(training: Callable[[], None]) -> bool:
    """Train; False if that fails, which has been said.

    Raises:
        StudyStoppedError: If it is stopped by a signal.
    """
    try:
        training()
    except StudyStoppedError as stop:
        if stop.args[0] > 128:
            raise
        return False
    return True
