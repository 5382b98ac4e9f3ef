"""The folder of a run as a session makes it, or finds it again: whose it is, where it stands, and on what data.

Tested in ``tests/engine/training/test_loop.py`` and ``tests/engine/training/test_own_data.py``.
"""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel.processes import current_world, decided_by_main, say
from gan_blocks.engine.data.held_out import split_held_out
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images_of
from gan_blocks.engine.data.record import DataRecord, changes, record_of
from gan_blocks.engine.data.sources import absolute
from gan_blocks.engine.recipe.config_json import config_to_json
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.runs.checkpoints import Checkpoint
from gan_blocks.engine.runs.config_file import compare_configs
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.lock import FolderLock
from gan_blocks.engine.training.agreement import newest_checkpoint
from gan_blocks.engine.training.command import CHANGEABLE_ON_RESUME, NEW_RUNS, TrainingCommand
from gan_blocks.engine.training.initial_weights import start_from

__all__ = ["OpenedRun", "load_split_images"]

DATA_KEY = "data"  # of a checkpoint's metadata: the digest of the data record, since data.json may be lost


def load_split_images(config: Any) -> tuple[ImageSet, ImageSet | None, DataRecord]:
    """The images to train on, those held out, and the record of both together."""
    images = load_images_of(config)
    record = record_of(images, absolute(config.data), seed=config.seed)
    training, held_out = split_held_out(images, config.hold_out, seed=config.seed)
    return training, held_out, record


class OpenedRun:
    """A run's folder, held by this session; the state is that of its newest sound checkpoint, if there is one.

    Args:
        recipe: What is trained.
        command: How; it may name a run to continue.
        state: Fresh players, which are given the weights of that run, or of the one to start from.
        data: What is learned from.

    Attributes:
        folder: The folder.
        step: Steps done so far.
        metadata: What this session's checkpoints say of the run, whatever becomes of the folder's files meanwhile;
            empty in other processes than the main one.

    Raises:
        UserError: If another process holds the folder, nothing in it is sound, or it was begun with another Config or
            on other data.
    """

    def __init__(self, recipe: Recipe[Any], command: TrainingCommand, state: TrainingState, data: DataRecord) -> None:
        self._recipe, self._command, self._state, self._data = recipe, command, state, data
        self._lock: FolderLock | None = None
        self.step = 0
        self.folder = self._create() if command.run is None else self._continue(command.run)
        # Once: while config.json is the one that was compared. The main process alone writes.
        self.metadata = {**self.folder.metadata(), DATA_KEY: data.digest} if current_world().is_main else {}

    def close(self) -> None:
        """Let other processes write into the folder."""
        if self._lock is not None:
            self._lock.close()

    def _create(self) -> RunFolder:
        self._start_from_other_run()  # before there is a folder: it may not fit
        return decided_by_main(self._new_folder)

    def _continue(self, run: RunFolder) -> RunFolder:
        decided_by_main(lambda: self._hold(run))
        checkpoint = newest_checkpoint(run)
        if checkpoint is None:
            decided_by_main(lambda: _refuse_lost_checkpoints(run))
            self._start_from_other_run()  # stopped before its first checkpoint: start again
            return decided_by_main(lambda: self._begin_again(run))
        if change := self._recipe.identity.changed_since(run.recipe):
            say(change)
        for note in checkpoint.notes:
            say(note)
        decided_by_main(lambda: self._check(run, checkpoint))
        self._state.restore(checkpoint.tensors)
        self.step = checkpoint.step
        return run

    def _hold(self, folder: RunFolder) -> None:
        self._lock = folder.begin_to_write()
        if self._lock.note:
            say(self._lock.note)

    def _new_folder(self) -> RunFolder:
        command, identity = self._command, self._recipe.identity
        config, run_dir = config_to_json(command.config), command.options.run_dir
        if run_dir is not None:
            folder = RunFolder.create_at(run_dir, identity, command.preset, config)
        else:
            folder = RunFolder.create(NEW_RUNS, identity, command.preset, config, datetime.now(UTC))
        self._hold(folder)
        folder.write_data(self._data.as_dict())
        return folder

    def _begin_again(self, run: RunFolder) -> RunFolder:
        folder = run.begin_again(self._command.preset, config_to_json(self._command.config))
        folder.write_data(self._data.as_dict())
        return folder

    def _check(self, run: RunFolder, checkpoint: Checkpoint) -> None:
        """Compare Config and images with those that the run began with, and write down where the images are now."""
        run.check_unchanged(checkpoint)
        # Again, now that nobody else writes here: the run may have got its first checkpoint since options were read.
        begun_with = config_to_json(self._recipe.config_from_json(checkpoint.metadata["config"]))
        given, remedy = config_to_json(self._command.config), f"Another process has begun {run.path} meanwhile."
        compare_configs(begun_with, given, allowed=CHANGEABLE_ON_RESUME, remedy=remedy)
        self._check_data(run, checkpoint.metadata.get(DATA_KEY))
        run.write_data(self._data.as_dict())

    def _check_data(self, run: RunFolder, digest: str | None) -> None:
        saved, now = run.data(), self._data
        then = None if saved is None else DataRecord.from_dict(saved)
        if then is not None and digest not in (None, then.digest):
            raise UserError(f"{run.data_path} was changed since the last checkpoint: put it back, or remove it.")
        problem = None if then is None else changes(then, now)
        if then is None and digest not in (None, now.digest):
            problem = f"its digest is another ({run.data_path.name}, which told in what it differs, is gone)"
        if problem is not None:
            remedy = f"Give them with --data as they were, or start a new run with --init-from {run.path}"
            name = self._command.config.data
            raise UserError(f"{name} is not what the run was started with: {problem}. {remedy}.")
        if then is not None and then.files != now.files:
            say("The names or sizes of the data's files are others than they were; labels and pixels are the same.")

    def _start_from_other_run(self) -> None:
        options = self._command.options
        if options.init_from is not None:
            for note in start_from(self._state, options.init_from, self._command.config):
                say(note)


def _refuse_lost_checkpoints(run: RunFolder) -> None:
    """Do not begin a run again whose checkpoints have gone, such as with a disk that is not there."""
    saved: list[Any] = []
    with suppress(UserError):  # a damaged log tells of nothing
        saved = [entry["step"] for entry in run.read_log() if entry.get("event") == "checkpoint"]
    if saved:
        remedy = "Bring it back, or name another folder"
        raise UserError(
            f"the log of {run.path} tells of a checkpoint of step {saved[-1]}, but there is none. {remedy}."
        )
