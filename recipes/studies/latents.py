"""Study what a generator's latents are drawn from (Brock et al. 2018, Appendix E).

Trains one preset with each latent distribution and each of several seeds, for equally many steps, and measures samples
without truncation: the share that a classifier takes for the class that was asked for, the spread within a class beside
that of the real images, and after how many steps the share first reached 0.8. The paper found Bernoulli {0, 1} and
Censored Normal the best without truncation, faster and a little better in the end, the others much like N(0, I).

The folder gets ``table.md``, and a run folder for each run. Run the same command again to continue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import get_args

import torch

from gan_blocks.engine import (
    LatentName,
    RunFolder,
    TrainedGenerator,
    UserError,
    find_recipe,
    load_trained,
    require_at_least,
    require_each_once,
)
from gan_blocks.engine.base import check_threads, replace_durably
from gan_blocks.engine.evaluation import Judge, check_sample_count
from gan_blocks.engine.studies import (
    Result,
    Study,
    StudyTask,
    carry_out_side_by_side,
    markdown_table,
    mean_and_deviation,
    study_command,
    train_quietly,
    train_run,
)

__all__ = ["Options", "main"]

SEED = 0  # of the samples and of the classifier
AGREEMENT = 0.8  # the share whose first step counts


@dataclass(frozen=True)
class Options:
    """What to train and measure."""

    out: Path = Path("runs/latent_study")
    """Folder of the study."""

    recipe: str = "sagan"
    """Training recipe; its Config needs --latent. The paper's study took SA-GAN."""

    preset: str = "mnist5k-16"
    """The preset that all runs share."""

    latents: tuple[LatentName, ...] = get_args(LatentName)
    """Distributions to compare, by the names of --latent."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the training, for each distribution."""

    steps: int = 500
    """Length of each run."""

    measure_every: int = 25
    """Steps between measurements of the agreement; divides --steps."""

    num: int = 1000
    """Samples that are measured each time."""

    threads: int = 1
    """CPU threads of each process."""

    processes: int = 2
    """Runs that are trained at a time, each in a process; the results do not depend on it."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_each_once(self, "latents", "seeds")
        require_at_least(self, 1, "steps", "measure_every", "processes")
        check_threads(self.threads)
        if self.steps % self.measure_every:
            raise UserError(f"--measure-every must divide --steps {self.steps}, but got {self.measure_every}.")
        require_at_least(self, 2, "num")


@dataclass(frozen=True)
class Task(StudyTask):
    """One run of the study."""

    options: Options
    latent: LatentName
    seed: int

    @property
    def name(self) -> str:
        """Name of the run's folder and of its result."""
        return f"{self.latent}_seed_{self.seed}"

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.options.out


def carry_out(options: Options) -> Path:
    """Train and measure what is missing; the table in the folder that is returned is renewed after each run.

    Raises:
        StudyStoppedError: If it is stopped by a signal.
        UserError: If runs failed; the others are trained and measured first.
    """
    recipe = find_recipe(options.recipe)
    preset = recipe.choose_preset(options.preset)
    config = recipe.presets[preset]()
    if not hasattr(config, "latent"):
        raise UserError(f"--recipe must be one whose Config has --latent, but got {options.recipe}.")
    check_sample_count(options.num, config.num_classes)
    fixed = ("recipe", "steps", "measure_every", "num", "threads")  # latents and seeds may be added later
    study = Study(options.out, {name: getattr(options, name) for name in fixed} | {"preset": preset})
    # All latents of a seed before the next, so that a stopped study compares.
    tasks = [Task(options, latent, seed) for seed in options.seeds for latent in options.latents]

    def renew(task: Task, result: Result) -> str:
        RunFolder.open(task.run).prune()
        replace_durably(options.out / "table.md", _table(study.results, options).encode())
        return f"agreement {result['agreement']:.3f}, diversity {result['diversity']:.3f}"

    carry_out_side_by_side(study, tasks, train_and_measure, processes=options.processes, kept=renew)
    return options.out


def train_and_measure(task: Task) -> Result | None:
    """Train a run and measure each of its checkpoints; None if the training failed, which its console tells.

    Raises:
        StudyStoppedError: If the training was stopped by a signal.
    """
    options = task.options
    torch.set_num_threads(options.threads)
    training = partial(train_run, task.run, find_recipe(options.recipe), _args(task), steps=options.steps)
    if not train_quietly(task.console, training):
        return None
    judge = _judge(options.recipe, options.preset)
    measured = range(options.measure_every, options.steps + 1, options.measure_every)
    curve = {str(step): judge.agreement(_trained(task, step), options.num) for step in measured}
    report = judge.report(_trained(task, options.steps), options.num)
    return report.as_dict() | {"agreement_by_step": curve}


def steps_to_reach(agreement: float, curve: Mapping[str, float]) -> int | None:
    """The first measured step with at least this agreement; None: there is none."""
    reached = [int(step) for step, value in curve.items() if value >= agreement]
    return min(reached, default=None)


@lru_cache(maxsize=1)
def _judge(recipe: str, preset: str) -> Judge:
    """Trained once for all runs of a process; that of another process is the same, bit for bit."""
    return Judge.of_data(find_recipe(recipe).presets[preset](), seed=SEED)


def _args(task: Task) -> list[str]:
    options, every = task.options, str(task.options.measure_every)
    return [
        *("--preset", options.preset, "--latent", task.latent, "--seed", str(task.seed)),
        *("--planned-steps", str(options.steps)),  # over which a variance is annealed
        *("--device", "cpu", "--threads", str(options.threads), "--sample-every", "0"),
        *("--checkpoint-every", every, "--keep-every", every, "--keep-last", "1"),
    ]


def _trained(task: Task, step: int) -> TrainedGenerator:
    weights = task.run / "checkpoints" / f"step_{step:06d}" / "ema.safetensors"
    return load_trained(run=None, weights=weights, device=torch.device("cpu"))


def _table(results: Mapping[str, Result], options: Options) -> str:
    head = ["latent", "runs", "agreement", "diversity", "novelty", f"steps to agreement {AGREEMENT}"]
    rows = []
    for latent in options.latents:
        names = [Task(options, latent, seed).name for seed in options.seeds]
        if measured := [results[name] for name in names if name in results]:
            shares = [
                mean_and_deviation([result[name] for result in measured], ".3f")
                for name in ("agreement", "diversity", "novelty")
            ]
            rows.append([latent, str(len(measured)), *shares, _speed(measured)])
    accuracy = next(iter(results.values()))["classifier_accuracy"]
    title = (
        f"{options.recipe}, {options.preset}: {options.steps} steps, {options.num:,} samples without truncation; means "
        f"over the runs (standard deviations). The classifier is right about {accuracy:.3f} of the real images that it "
        f"has not seen. Agreement was measured every {options.measure_every} steps.\n\n"
    )
    return title + markdown_table(head, rows)


def _speed(measured: Sequence[Result]) -> str:
    """Mean and deviation over the runs that got there, and how many did if not all."""
    reached = [steps_to_reach(AGREEMENT, result["agreement_by_step"]) for result in measured]
    steps = [step for step in reached if step is not None]
    if not steps:
        return "not reached"
    shown = mean_and_deviation(steps, ".0f")
    return shown if len(steps) == len(measured) else f"{shown}, in {len(steps)} of {len(measured)} runs"


def main(argv: Sequence[str] | None = None) -> int:
    """Carry the study out; see ``python -m recipes.studies.latents --help``."""
    return study_command("python -m recipes.studies.latents", Options, carry_out, about=__doc__, args=argv)


if __name__ == "__main__":
    raise SystemExit(main())
