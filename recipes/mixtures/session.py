"""One session of training GANs in the plane side by side: rounds of steps, log, checkpoints, evaluations.

Tested in ``tests/recipes/test_mixture_of_gaussians.py``.
"""

import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from gan_blocks.engine import Fields, RunFolder, UserError, require_positive
from gan_blocks.engine.base import (
    Progress,
    StopRequest,
    check_threads,
    random_stream,
    replace_durably,
    worker_pool,
)
from gan_blocks.engine.runs import RecipeIdentity, compare_configs
from recipes.mixtures.analysis import analyze, draw_analysis, tabulate_analysis
from recipes.mixtures.config import OF_OLDER_RUNS, Config
from recipes.mixtures.gans import Gan, Scores, arms_of, by_arm, draw_samples, evaluate

__all__ = ["MixtureOptions", "MixtureSession"]

ROUND_SECONDS = 2.0  # between two looks for a signal; to hand a GAN to a process and back takes about a step's time
ANALYZED = 10_000  # samples

Losses = tuple[float, float]
"""D's and G's."""


@dataclass(frozen=True)
class MixtureOptions(Fields):
    """How the run is carried out; may change when it is continued."""

    run_dir: Path | None = None
    """Folder of the run; the same command continues what it holds (default: runs/mixture_of_gaussians-MODES)."""
    steps: int | None = None
    """Stop when the run has this many steps in all (default: --planned-steps)."""
    threads: int | None = None
    """CPU threads, shared by processes that train GANs of their own (default: torch's choice)."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; one is also written at the end and on SIGINT or SIGTERM."""
    evaluate_every: int = 10_000
    """Steps between evaluations with a picture; one is also made at the end."""
    log_every: int = 100
    """Steps between lines of log.jsonl."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "steps", "checkpoint_every", "evaluate_every", "log_every")
        check_threads(self.threads)


class MixtureSession:
    """One session of training: from its start or last checkpoint to its end or a signal.

    Args:
        recipe: What the run's folder says of the recipe.
        config: What is trained.
        options: How.
        folder: The run's; made, or continued where it holds a run already.
        gans: Fresh ones, all seeds of one arm after those of the other.
        train: Takes steps of one GAN, from a first number to a last; gives back the GAN, wherever it was trained, and
            its last losses. It must pickle.

    Raises:
        UserError: If the folder holds another run, or no checkpoint of it is whole.
    """

    def __init__(
        self,
        recipe: RecipeIdentity,
        config: Config,
        options: MixtureOptions,
        folder: Path,
        *,
        gans: Sequence[Gan],
        train: Callable[..., tuple[Gan, Losses]],
    ) -> None:
        self.config, self.options, self.gans = config, options, list(gans)
        if RunFolder.holds_run(folder):
            self.folder = RunFolder.open(folder)
            if not self.folder.recipe.is_of(recipe):
                raise UserError(f"{folder} holds a run of {self.folder.recipe}, not of {recipe}.")
            compare_configs({**OF_OLDER_RUNS, **self.folder.config()}, asdict(config))
        else:
            self.folder = RunFolder.create_at(folder, recipe, f"{config.modes}-modes", asdict(config))
        self._lock = self.folder.begin_to_write()
        self._metadata = self.folder.metadata()
        self.step = self._restore()
        self.last_step = config.planned_steps if options.steps is None else options.steps
        self._train, self._saved_step, self._round = train, self.step, 1

    def carry_out(self, stop: StopRequest) -> Scores | None:
        """Train to the end and evaluate; None when a signal came first."""
        with closing(self._lock):
            return self._train_and_evaluate(stop)

    def _train_and_evaluate(self, stop: StopRequest) -> Scores | None:
        self.folder.truncate_log(after_step=self.step)
        self.folder.append_log({"event": "start", "step": self.step, "torch": torch.__version__})
        threads = torch.get_num_threads()
        workers = min(threads, len(self.gans))
        bar = Progress(
            total=self.last_step, initial=self.step, unit="step", dynamic_ncols=True, desc=self.folder.path.name
        )
        with bar, worker_pool(workers, threads=threads // workers) as apply:
            while self.step < self.last_step and not stop.signal:
                first, last = self.step + 1, self._next_stop()
                began = time.monotonic()
                try:
                    done = list(apply(partial(self._train, first=first, last=last), self.gans))
                except BrokenProcessPool:
                    if stop.signal:  # it has reached a worker that was not yet deaf to it
                        break
                    raise UserError(
                        f"a worker has died; run the same command again to continue {self.folder.path}."
                    ) from None
                steps_a_second = (last - self.step) / (time.monotonic() - began)
                self._round = max(1, round(ROUND_SECONDS * steps_a_second))
                self.gans, self.step = [gan for gan, _ in done], last
                bar.update(last - first + 1)
                self._record([losses for _, losses in done])
        if self.step > self._saved_step or self.step == 0:
            self._save()
        return None if stop.signal and self.step < self.last_step else self._evaluate()

    def analyze(self) -> None:
        """Write what one update from the best and from the worst samples does, of the plain arm."""
        found = [
            analyze(
                gan.generator,
                gan.discriminator,
                centers=self.config.centers(),
                std=self.config.mode_std(),
                z=torch.randn(ANALYZED, self.config.latent_dim, generator=random_stream(gan.seed, "analysis")),
                learning_rate=self.config.learning_rate,
            )
            for gan in self.gans
            if gan.arm == "plain"
        ]
        text = tabulate_analysis(found, steps=self.step, modes=self.config.modes)
        replace_durably(self.folder.path / "analysis.md", text.encode())
        draw_analysis(self.folder.path / "analysis.png", found)
        print(text)

    def _restore(self) -> int:
        if not self.folder.saved_steps():
            return 0
        checkpoint = self.folder.newest_checkpoint()
        self.folder.check_unchanged(checkpoint)
        for note in checkpoint.notes:
            tqdm.write(note, file=sys.stderr)
        for gan in self.gans:
            gan.restore(checkpoint)
        return checkpoint.step

    def _next_stop(self) -> int:
        """The next step after which there is something to do, soon enough for a signal to be heeded."""
        periods = (self.options.log_every, self.options.evaluate_every, self.options.checkpoint_every)
        due = [self.step - self.step % period + period for period in periods]
        return min(self.last_step, self.step + self._round, *due)

    def _record(self, losses: Sequence[Losses]) -> None:
        """Do what is due at this step."""
        if self.step % self.options.log_every == 0:
            self._log(losses)
        if self.step % self.options.evaluate_every == 0 and self.step < self.last_step:
            self._evaluate()
        if self.step % self.options.checkpoint_every == 0:
            self._save()

    def _log(self, losses: Sequence[Losses]) -> None:
        of_d, of_g = zip(*losses, strict=True)
        if not all(map(math.isfinite, of_d + of_g)):
            raise UserError(f"a loss is not finite at step {self.step}. Try a lower --learning-rate.")
        k = self.config.schedule().k(steps=self.step - 1)
        values = {"loss_d": by_arm(self.gans, of_d), "loss_g": by_arm(self.gans, of_g)}
        self.folder.append_log({"step": self.step, "k": k, **values})

    def _save(self) -> None:
        tensors: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for gan in self.gans:
            for part, own in gan.tensors().items():
                tensors[part] |= own
        self.folder.save(self.step, tensors, keep_last=2, metadata=self._metadata)
        self._saved_step = self.step

    def _evaluate(self) -> Scores:
        config, centers = self.config, self.config.centers()
        scores = evaluate(self.gans, centers, std=config.mode_std(), samples=config.evaluation_samples)
        self.folder.append_log({"event": "evaluation", "step": self.step, "arms": arms_of(self.gans), **scores})
        margin = config.spacing * config.scale() / 2
        draw_samples(self.folder.samples_path(self.step), self.gans, centers, scores, margin=margin)
        return scores
