"""The training loop of every recipe: data, progress, log, sample sheets, checkpoints and a clean stop.

Of several processes, each goes through all of it; the main one alone writes and speaks.

Tested in ``tests/engine/training/test_loop.py``.
"""

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gan_blocks.engine.base.devices import notes_on_precision, torch_device, use_threads
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.interrupts import StopRequest
from gan_blocks.engine.base.memory import out_of_memory
from gan_blocks.engine.base.parallel.processes import (
    current_world,
    decided_by_main,
    joined_processes,
    largest,
    main_rank_only,
    say,
    telling_others,
)
from gan_blocks.engine.base.terminal.command_line import run_command
from gan_blocks.engine.base.terminal.console import Progress
from gan_blocks.engine.data.loading import with_mirror_images
from gan_blocks.engine.pictures.spectra import draw_spectra
from gan_blocks.engine.recipe.batches import BatchSource, StepBatches, check_parts, check_split
from gan_blocks.engine.recipe.build import build_state, check_extra, check_networks, config_at, follow_config
from gan_blocks.engine.recipe.next_steps import after_divergence, after_training, next_steps
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.runs.checkpoints import list_checkpoints, save_checkpoint
from gan_blocks.engine.runs.report import write_report
from gan_blocks.engine.runs.weights import first_not_finite
from gan_blocks.engine.training.agreement import check_same_data, check_same_start, check_same_state
from gan_blocks.engine.training.announcements import large_losses, opening_words
from gan_blocks.engine.training.command import TrainingCommand, parse_training_command
from gan_blocks.engine.training.compiling import check_compiler, compile_networks, needs_second_derivative
from gan_blocks.engine.training.evaluator import Evaluator
from gan_blocks.engine.training.opening import OpenedRun, load_split_images
from gan_blocks.engine.training.sample_sheets import draw_sheet, ready_generator
from gan_blocks.engine.training.spectra import SpectrumRecorder, WeightsNotFiniteError, sigma_curves
from gan_blocks.engine.training.step_log import loggable
from gan_blocks.engine.training.top_k import AllScoresNaNError

__all__ = ["train"]

# Standing statistics for the sheets drawn while training: fewer batches than for samples that are kept.
SHEET_STANDING_BATCHES = 10


def train(recipe: Recipe[Any], argv: Sequence[str] | None, *, prog: str) -> int:
    """The body of :meth:`Recipe.main`; returns the exit status."""

    def command() -> int:
        with telling_others():  # a run to continue that this process alone does not find
            asked = parse_training_command(recipe, prog=prog, args=argv)
        with joined_processes(asked.options.device, timeout=asked.options.timeout) as device:
            options = replace(asked.options, device=device)
            run = Run(recipe, replace(asked, options=options))
            try:
                return run.carry_out()
            finally:
                run.close()

    return run_command(recipe.name, command)


class Run:
    """One session of training: from its start or last checkpoint to its budget or a signal."""

    def __init__(self, recipe: Recipe[Any], command: TrainingCommand) -> None:
        self.recipe, self.config, self.options = recipe, command.config, command.options
        self.notes, self.prog = (*use_threads(self.options.threads), *command.notes), command.prog
        self.world = current_world()
        check_compiler(self.options, torch_device(self.options.device))
        check_same_start(recipe, command)
        check_split(self.config, self.options, self.world)
        check_parts(self.config, self.options, self.world)
        self.prior = recipe.build_prior(self.config)
        training, self.held_out, self.data = load_split_images(self.config)
        self.images = with_mirror_images(training) if self.config.mirror else training
        check_same_data(self.data)
        self.state: TrainingState = build_state(recipe, self.config, self.options)
        check_networks(self.state, self.prior, self.config)
        self.spectra: SpectrumRecorder | None = None
        if self.options.spectra_every:
            self.spectra = SpectrumRecorder(self.state.generator, self.state.discriminator)
        self.opened = OpenedRun(recipe, command, self.state, self.data)
        self.folder, self.step = self.opened.folder, self.opened.step
        if self.options.compile:
            compile_networks(self.state)
        self.evaluator: Evaluator | None = None
        if self.options.evaluate_every:
            self.evaluator = Evaluator(training, self.held_out, self.config, self.folder.path)
        self.source = BatchSource(self.images, self.prior, self.config, self.options)
        self.last_step = self.config.planned_steps if self.options.steps is None else self.options.steps
        self._warned = False
        self._followed = self.config  # by which the optimizers were set last
        self._pending: list[tuple[int, dict[str, Tensor]]] = []
        self._saved_step = self.step
        self._seconds_before, self._began = 0.0, time.monotonic()
        check_same_state(self.state.tensors(), self.step)

    def carry_out(self) -> int:
        """Train until the budget is used up or a signal asks to stop; returns the exit status."""
        self._announce()
        self._began = time.monotonic()
        minutes = self.options.minutes
        deadline = math.inf if minutes is None else self._began + 60 * minutes
        progress = Progress(
            total=self.last_step if minutes is None else None,  # the clock ends it, most likely
            initial=self.step,
            unit="step",
            dynamic_ncols=True,
            desc="training" if minutes is None else f"training for {minutes:.3g} min",
            disable=not self.world.is_main,
        )
        with StopRequest(last_word=self.world.size == 1) as stop, progress:
            if self.step == 0:
                self._measure_spectra()  # of the initial weights
            while self.step < self.last_step and not self._must_stop(stop, deadline):
                self.step += 1
                batches = self.source.step(self.step)
                self._pending.append((self.step, self._train_step(batches)))
                if self.step == self.opened.step + 1:
                    self.state.tensors()  # what could not be saved is said now
                progress.update()
                self._do_what_is_due(progress)
            self.source.close()
            self._flush_losses(progress)
            self._finish()
        return self._closing_words(stop, time.monotonic() - self._began)

    def close(self) -> None:
        """Let other processes write into the run's folder."""
        self.opened.close()

    def _train_step(self, batches: StepBatches) -> dict[str, Tensor]:
        """One step of the recipe; what to log of it.

        Raises:
            UserError: If top-k training finds no image to learn from, or memory runs out.
        """
        config = config_at(self.config, batches.step)
        if config is not self._followed:  # also where a schedule has come to its end
            follow_config(self.recipe, self.state, config)
            self._followed = config
        try:
            losses = loggable(self.recipe.train_step(self.state, batches, config))
            check_extra(self.state)
        except AllScoresNaNError:
            what = f"D gives no generated image a score but NaN at step {self.step}"
            raise main_rank_only(self._divergence(what)) from None
        except (RuntimeError, MemoryError) as error:
            if self.options.compile and needs_second_derivative(error):
                rule = "compiled networks have no second derivatives, which this recipe's training step takes"
                remedy = "run D inside twice_differentiable() there, or leave --compile out"
                raise main_rank_only(UserError(f"{rule}: {remedy}.")) from error
            if problem := out_of_memory(error):
                remedy = "--accumulate 2 or more, --checkpoint-activations, a smaller --batch-size or bf16 need less"
                raise UserError(f"{problem} in step {batches.step}; {remedy}.") from error
            raise
        if self.config.top_k_gamma < 1:
            losses |= {"k": torch.tensor(batches.k), "nan_scores": self.state.nan_scores.clone()}
        return losses

    def _must_stop(self, stop: StopRequest, deadline: float) -> bool:
        """Whether a signal or the clock asks any process to stop: all stop after the same step."""
        agreed = largest(stop.signal)
        if agreed:  # never back to 0: the handler may have set it while the processes compared
            stop.signal = agreed
        if agreed or self.options.minutes is None:
            return bool(agreed)
        return bool(largest(time.monotonic() >= deadline))

    def _announce(self) -> None:
        """Say what is about to happen, and write down what the last bits depend on."""
        for note in (*notes_on_precision(self.options.precision, self.state.device), *self.notes):
            say(note)
        for line in opening_words(self.state, self.images, self.held_out, self.data, self.config, self.step):
            say(line)
        if self.world.is_main:
            self.folder.truncate_log(after_step=self.step)
            self._seconds_before = self.folder.trained_seconds()
        say(f"{'Run' if self.step == 0 else f'Continuing after step {self.step}'}: {self.folder.path}")
        if 0 < self.last_step <= self.step:
            say(f"Nothing is left to train up to step {self.last_step}; --steps is the number of the last one.")
        machine = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
        how = {"device": str(self.state.device), "precision": self.options.precision, "processes": self.world.size}
        self._record({"event": "start", "step": self.step, **machine, **how})

    def _do_what_is_due(self, progress: Progress) -> None:
        options = self.options
        save = self.step % options.checkpoint_every == 0
        measure = options.spectra_every and self.step % options.spectra_every == 0
        evaluate = options.evaluate_every and self.step % options.evaluate_every == 0
        if save or measure or evaluate or self.step % options.log_every == 0:
            self._flush_losses(progress)
        if measure:
            self._measure_spectra()
        if evaluate:
            self._evaluate()
        if options.compare_every and self.step % options.compare_every == 0:
            check_same_state(self.state.tensors(), self.step)
        if options.sample_every and self.step % options.sample_every == 0:
            self._draw_sheet(SHEET_STANDING_BATCHES)
            self._draw_spectra()
        if save:
            self._save()

    def _flush_losses(self, progress: Progress) -> None:
        """Write the losses since the last call to the log. Reading them here and not each step keeps a GPU busy.

        Raises:
            UserError: If a loss is not finite; nothing since the last checkpoint is saved then.
        """
        if not self._pending:
            return
        rate = progress.format_dict["rate"]  # None in the first moments
        for step, losses in self._pending:
            values = {name: loss.item() for name, loss in losses.items()}
            if not all(map(math.isfinite, values.values())):
                self._record({"event": "not finite", "step": step, **{n: str(v) for n, v in values.items()}})
                every = ", ".join(f"{name} {value}" for name, value in values.items())
                raise main_rank_only(self._divergence(f"the loss is not finite at step {step} ({every})"))
            self._record({"step": step, **values})
            if not self._warned and (large := large_losses(values)):  # divergence needs no NaN
                self._warned = True
                say(f"Step {step}: {large}: the training has most likely diverged. Try a lower learning rate.")
            if left_out := values.get("nan_scores"):
                say(f"Step {step}: {left_out} generated images have no score but NaN; top-k training leaves them out.")
        self._pending.clear()
        shown = {name: f"{value:.3f}" for name, value in values.items() if name.startswith("loss_")}
        speed = {"images/s": f"{rate * self.config.batch_size_at(self.step):.0f}"} if rate else {}
        progress.set_postfix(shown | speed)

    def _measure_spectra(self) -> None:
        """Write the singular values of all weights to the log, if that was asked for.

        Raises:
            UserError: If a weight is not finite, which the next loss would show too.
        """
        if self.spectra is None or not self.world.is_main:
            return
        try:
            self.folder.append_log(self.spectra.measure(self.step))
        except WeightsNotFiniteError as error:
            self.folder.append_log({"event": "not finite", "step": self.step, "weight": str(error)})
            raise self._divergence(f"a weight is not finite after step {self.step} ({error})") from None

    def _evaluate(self) -> None:
        """Write a small evaluation to the log."""
        assert self.evaluator is not None
        generator = ready_generator(self.state, self.prior, self.config, standing_batches=SHEET_STANDING_BATCHES)
        measure = partial(self.evaluator.measure, generator, self.state.discriminator, self.prior)

        def record() -> None:
            if found := measure():
                self._record({"event": "evaluation", "step": self.step, **found})

        decided_by_main(record)

    def _divergence(self, what: str) -> UserError:
        """The error that ends a training that has diverged; its spectra are drawn, being what one looks at then."""
        self._draw_spectra()
        run = self.folder.path
        remedy = "a lower learning rate" if self.options.precision.startswith("fp") else "fp32 or a lower learning rate"
        if not list_checkpoints(self.folder.checkpoints):
            return UserError(f"{what}; that was before the first checkpoint of {run}. Try {remedy}.")
        command = f": {after_divergence(self.prog, run, self.config)}" if self.prog else "."
        kept = f"the last good checkpoint, of step {self._saved_step}, is kept in {run}"
        return UserError(f"{what}; {kept}. Try {remedy}{command}")

    def _draw_spectra(self) -> None:
        if self.spectra is None or not self.world.is_main:
            return
        if curves := sigma_curves(self.folder.read_log()):
            title = f"{self.folder.title}: singular values of the weights"
            draw_spectra(self.folder.spectra_path, curves, title)

    def _draw_sheet(self, standing_batches: int | None = None) -> None:
        generator = ready_generator(self.state, self.prior, self.config, standing_batches=standing_batches)
        if self.world.is_main:
            path = self.folder.samples_path(self.step)
            draw_sheet(generator, self.prior, self.config, self.images.class_names, path)

    def _record(self, entry: Mapping[str, Any]) -> None:
        if self.world.is_main:
            self.folder.append_log(entry)

    def _save(self) -> None:
        # In the log and not in the checkpoint, whose bytes are to be a function of the training alone.
        spent, waited = time.monotonic() - self._began, self.source.seconds_waited
        times = {"seconds": self._seconds_before + spent, "waiting_for_data": waited / spent if spent else 0.0}
        decided_by_main(self._write_checkpoint)
        self._record({"event": "checkpoint", "step": self.step, **times})
        self._saved_step = self.step

    def _write_checkpoint(self) -> None:
        """Save, unless the last update has spoiled a weight, of which the next loss would be the first to tell."""
        tensors, options = self.state.tensors(), self.options
        if (problem := first_not_finite(tensors)) is not None:
            self._record({"event": "not finite", "step": self.step, "tensor": problem})
            raise self._divergence(f"{problem} after step {self.step}")
        save_checkpoint(
            self.folder.checkpoints,
            self.step,
            tensors=tensors,
            metadata=self.opened.metadata,
            keep_last=options.keep_last,
            keep_every=options.keep_every,
        )

    def _finish(self) -> None:
        """A last checkpoint and a last sheet, unless there is nothing new since the last ones."""
        if self.step > self._saved_step or self.step == 0:
            self._save()
        self._draw_sheet()
        self._draw_spectra()
        preset = self.recipe.preset_values(self.folder.preset)
        decided_by_main(partial(write_report, self.folder, preset))
        largest(0)  # nobody leaves before all have come here: who says that it is done would not notice

    def _closing_words(self, stop: StopRequest, seconds: float) -> int:
        say(f"Sample sheet: {self.folder.samples_path(self.step)}")
        if self.spectra is not None:
            say(f"Spectra: {self.folder.spectra_path}")
        if stop.signal:
            say(f"Stopped at step {self.step}.")
        else:
            ended = "Done" if self.step >= self.last_step else "Time is up"
            say(f"{ended} at step {self.step}, after {seconds:.0f} s.")
        if self.prog:
            planned = self.config.planned_steps
            steps = after_training(self.recipe, self.prog, self.folder.path, self.options, self.step, planned)
            for line in next_steps(steps):
                say(line)
        return 128 + stop.signal if stop.signal else 0
