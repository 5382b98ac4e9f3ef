"""Study how many modes training methods cover with a crippled discriminator (Karras et al. 2018, Appendix E, Table 4).

Trains recipes.stacked_mnist by each method and with each of several seeds until D has seen equally many images
(``progression`` 1.5 times as many, as in the paper's code). A classifier of digits, trained here and now, reads the
three digits of 25,600 samples. The measures are those of Table 4: how many of the 1,000 numbers there are, and the
divergence of their histogram from uniform. What the classifier reads in as many real images stands beside them.

The folder gets ``table.md``, ``samples.png`` with a row a method, and a run folder for each run. Run the same command
again to continue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from gan_blocks import discrete_mode_coverage
from gan_blocks.engine import UserError, draw_samples, load_images, load_trained, require_at_least, require_each_once
from gan_blocks.engine.base import check_threads, replace_durably
from gan_blocks.engine.data import NUM_STACKS, load_images_of, stacked_numbers
from gan_blocks.engine.evaluation import TrainedClassifier, class_scores, train_classifier
from gan_blocks.engine.pictures import save_sheet
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
from recipes import stacked_mnist

__all__ = ["Options", "main"]

Method = Literal["gan", "wgan-gp", "our-norm", "stddev", "progression"]
Size = Literal["k4", "k2"]

PUBLISHED_IMAGES = 10_000_000
FEWEST_IMAGES = 1000  # a growing run of fewer never reaches its size
SEED = 0  # of the samples and of the classifier
ON_SHEET = 16  # samples of each method
SAMPLED_AT_ONCE = 256
REAL = "real images"  # the key of what the classifier reads in them

# Modes and divergence in Table 4 of the paper: mean and standard deviation over 8 runs.
PAPER: Mapping[tuple[Size, Method], tuple[str, str]] = {
    ("k4", "gan"): ("30.6 (20.7)", "5.99 (0.04)"),
    ("k4", "wgan-gp"): ("640.1 (136.3)", "1.97 (0.70)"),
    ("k4", "our-norm"): ("856.7 (50.4)", "1.10 (0.19)"),
    ("k4", "stddev"): ("881.3 (39.2)", "1.09 (0.16)"),
    ("k4", "progression"): ("859.5 (36.2)", "1.05 (0.09)"),
    ("k2", "gan"): ("628.0 (140.9)", "2.58 (0.75)"),
    ("k2", "wgan-gp"): ("772.4 (146.5)", "1.35 (0.55)"),
    ("k2", "our-norm"): ("886.6 (58.5)", "0.98 (0.33)"),
    ("k2", "stddev"): ("918.3 (30.2)", "0.89 (0.21)"),
    ("k2", "progression"): ("919.8 (35.1)", "0.82 (0.13)"),
}


@dataclass(frozen=True)
class Options:
    """What to train and measure."""

    out: Path = Path("runs/stacked_mnist_study")
    """Folder of the study."""

    size: Size = "k4"
    """The discriminator: k4 of 2, 4 and 8 channels, or k2 of twice as many."""

    methods: tuple[Method, ...] = ("gan", "wgan-gp", "our-norm")
    """Presets to compare, without the size: gan, wgan-gp, our-norm, stddev, progression."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the training, for each method."""

    images: int = 2_500_000
    """Length of each run in real images shown to D (the paper's code: 10,000,000)."""

    num: int = 25_600
    """Samples that are read of each run."""

    threads: int = 1
    """CPU threads of each process."""

    processes: int = 2
    """Runs that are trained at a time, each in a process; the results do not depend on it."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_each_once(self, "methods", "seeds")
        require_at_least(self, FEWEST_IMAGES, "images")
        require_at_least(self, 1, "processes")
        check_threads(self.threads)
        if not ON_SHEET <= self.num <= NUM_STACKS:
            raise UserError(f"--num must be from {ON_SHEET} to {NUM_STACKS:,}, but got {self.num}.")


@dataclass(frozen=True)
class Task(StudyTask):
    """One run of the study."""

    options: Options
    method: Method
    seed: int

    @property
    def preset(self) -> str:
        """The preset of recipes.stacked_mnist."""
        return f"{self.method}-{self.options.size}"

    @property
    def config(self) -> stacked_mnist.Config:
        """What is trained: growth, where there is any, takes the same share of the run as in the paper's code."""
        preset = stacked_mnist.PRESETS[self.preset]()
        share = self.options.images / PUBLISHED_IMAGES
        images = round(share * preset.images_before(preset.planned_steps + 1))
        if preset.grows:
            phases = {name: round(share * getattr(preset, name)) for name in ("stabilize_images", "fade_images")}
            preset = replace(preset, **phases)
        return preset.lasting(images)

    @property
    def name(self) -> str:
        """Name of the run's folder and of its result."""
        return f"{self.method}_seed_{self.seed}"

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.options.out


def carry_out(options: Options) -> Path:
    """Train and measure what is missing; table and picture in the folder that is returned are renewed after each run.

    Raises:
        StudyStoppedError: If it is stopped by a signal.
        UserError: If runs failed; the others are trained and measured first.
    """
    fixed = ("size", "images", "num", "threads")  # methods and seeds may be added later
    study = Study(options.out, {name: getattr(options, name) for name in fixed})
    study.result(REAL, lambda: measure_real(options.num))
    # All methods of a seed before the next, so that a stopped study compares.
    tasks = [Task(options, method, seed) for seed in options.seeds for method in options.methods]

    def renew(_task: Task, result: Result) -> str:
        _renew(study.results, options)
        return f"{result['modes']} modes, divergence {result['kl_divergence']:.2f}"

    carry_out_side_by_side(study, tasks, train_and_measure, processes=options.processes, kept=renew)
    _renew(study.results, options)
    return options.out


def train_and_measure(task: Task) -> Result | None:
    """Train a run and read its samples; None if the training failed, which its console tells.

    Raises:
        StudyStoppedError: If the training was stopped by a signal.
    """
    options = task.options
    torch.set_num_threads(options.threads)
    training = partial(train_run, task.run, stacked_mnist.RECIPE, _args(task), steps=task.config.planned_steps)
    if not train_quietly(task.console, training):
        return None
    return measure_numbers(read_numbers(_samples(task, options.num)))


def measure_real(num: int) -> Result:
    """The same of real images, with the classifier's error on digits that it has not seen."""
    images = load_images_of(stacked_mnist.Config())
    read = [
        read_numbers(images.batch(indices)[0]) for indices in torch.arange(min(num, len(images))).split(SAMPLED_AT_ONCE)
    ]
    return measure_numbers(torch.cat(read)) | {"classifier_error": 1 - _classifier().held_out_accuracy}


def measure_numbers(numbers: Tensor) -> dict[str, float]:
    """Modes and divergence of the numbers that were read, (images,)."""
    coverage = discrete_mode_coverage(numbers, num_modes=1000)
    return {"modes": coverage.covered, "kl_divergence": coverage.kl_divergence}


def read_numbers(images: Tensor) -> Tensor:
    """The number, 0 to 999, that the classifier sees in each image, (images, 3, height, width) in [-1, 1]."""
    digits = rearrange(images, "image channel h w -> (image channel) 1 h w")
    classes = class_scores(_classifier().classifier, digits).argmax(dim=1)
    return stacked_numbers(rearrange(classes, "(image channel) -> image channel", channel=3))


@lru_cache(maxsize=1)
def _classifier() -> TrainedClassifier:
    """Trained once for all runs of a process; that of another process is the same, bit for bit."""
    digits = load_images("mnist5k", resolution=stacked_mnist.Config().resolution, channels=1, num_classes=10)
    images, labels = digits.batch(torch.arange(len(digits)))
    return train_classifier(images, labels, num_classes=10, seed=SEED)


def _args(task: Task) -> list[str]:
    return [
        *("--preset", task.preset, "--seed", str(task.seed), "--planned-steps", str(task.config.planned_steps)),
        *("--stabilize-images", str(task.config.stabilize_images), "--fade-images", str(task.config.fade_images)),
        *("--device", "cpu", "--threads", str(task.options.threads), "--sample-every", "0"),
        *("--checkpoint-every", "500", "--keep-last", "1", "--log-every", "100"),
    ]


def _samples(task: Task, count: int) -> Tensor:
    trained = load_trained(run=task.run, weights=None, device=torch.device("cpu"))
    return draw_samples(trained, count, seed=SEED, batch_size=SAMPLED_AT_ONCE)[0]


def _renew(results: Mapping[str, Result], options: Options) -> None:
    """Write the table, and samples of the first seed of each method."""
    measured = [method for method in options.methods if Task(options, method, options.seeds[0]).name in results]
    if measured:
        samples = [_samples(Task(options, method, options.seeds[0]), ON_SHEET) for method in measured]
        save_sheet(options.out / "samples.png", torch.cat(samples), columns=ON_SHEET, captions=measured)
    replace_durably(options.out / "table.md", _table(results, options).encode())


def _table(results: Mapping[str, Result], options: Options) -> str:
    head = ["method", "runs", "modes", "divergence", "modes in the paper", "divergence in the paper"]
    rows = []
    for method in options.methods:
        names = [Task(options, method, seed).name for seed in options.seeds]
        if measured := [results[name] for name in names if name in results]:
            modes = mean_and_deviation([result["modes"] for result in measured], ".1f")
            divergence = mean_and_deviation([result["kl_divergence"] for result in measured], ".2f")
            rows.append([method, str(len(measured)), modes, divergence, *PAPER[options.size, method]])
    real = results[REAL]
    title = (
        f"{options.size}: {options.images:,} images (progression: half as many more), {options.num:,} samples; means "
        "of the runs (standard deviations), in the paper of 8. In as many real images the classifier reads "
        f"{real['modes']} modes with a divergence of {real['kl_divergence']:.3f}; it errs on "
        f"{real['classifier_error']:.1%} of unseen digits."
    )
    return f"{title}\n\n{markdown_table(head, rows)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Carry the study out; see ``python -m recipes.studies.stacked_mnist --help``."""
    return study_command("python -m recipes.studies.stacked_mnist", Options, carry_out, about=__doc__, args=argv)


if __name__ == "__main__":
    raise SystemExit(main())
