"""Study top-k training of images (Sinha et al. 2020): Table 3, six kinds of GAN, or Table 5, its ablations.

Table 3 trains each kind of GAN with and without top-k, on images without their classes. Table 5 trains SA-GAN with
other decay rates and floors of k, and with top-k applied to the discriminator. Without top-k, each trains for the same
minutes by the clock; with it, for as many steps as without, so that a busy machine does not favor one of the two.

The paper decays k once an epoch of runs of some hundred epochs. These runs see an epoch or two, so k decays after each
--decay-images of the images shown to D.

Samples are compared with the real images by the Fréchet distance of the features of a classifier, which is trained on
the real images at the start: it is no FID, and no number here compares with the paper's, which the table repeats.
Beside it stand the sliced Wasserstein distance of patches, the spread of the samples, and their distance to the nearest
real image over that of other real images. The row of real images, which the classifier has not seen, is what perfect
samples would get. With ``--features efflite0-64`` the table has a second Fréchet distance, in the features of a network
that knows nothing of the data, to 10,000 of the real images.

The folder gets ``table.md``, ``sheet.png`` and a run folder for each run. Run the same command again to continue; a run
continues with what is left of its minutes.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from gan_blocks.engine import (
    RunFolder,
    UserError,
    draw_samples,
    find_recipe,
    load_images,
    load_trained,
    require_at_least,
    require_each_once,
    require_positive,
)
from gan_blocks.engine.base import check_threads, replace_durably
from gan_blocks.engine.evaluation import DistributionJudge, FeatureDistance, load_network
from gan_blocks.engine.pictures import save_sheet
from gan_blocks.engine.studies import (
    Result,
    Study,
    markdown_table,
    mean_and_deviation,
    study_command,
    train_for,
    train_ok,
    train_run,
)
from recipes.studies.top_k_arms import VARIANTS, Arm, VariantName, ablations, arms_with_and_without

__all__ = ["Options", "main"]

SEED = 0  # of the samples and of the classifier
SEEN_BY_NETWORK = 10_000  # real images
COLUMNS = 8  # of the sheet, for each arm
REAL = "real images"


@dataclass(frozen=True)
class Options:
    """What to train and measure."""

    out: Path = Path("runs/top_k_study")
    """Folder of the study; each table has a folder of its own in it."""

    table: Literal["3", "5"] = "3"
    """The table of the paper: 3, kinds of GAN with and without top-k, or 5, ablations on SA-GAN."""

    variants: tuple[VariantName, ...] = tuple(VARIANTS)
    """Kinds of GAN to train for Table 3."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the training, for each run."""

    data: str = "fashion-mnist"
    """Training images, shown in gray, whose classes the GANs do not see but the classifier learns."""

    minutes: float = 15.0
    """Length of each run without top-k by the clock; those with it make as many steps."""

    decay_images: int = 250
    """Images shown to D between two decays of k."""

    num: int = 10_000
    """Samples of each run that are measured."""

    features: str | None = None
    """Network of a second Fréchet distance, such as efflite0-64: see gan-blocks evaluate --features."""

    threads: int = 1
    """CPU threads."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_each_once(self, "variants", "seeds")
        require_positive(self, "minutes", "decay_images")
        check_threads(self.threads)
        require_at_least(self, 2, "num")
        if self.table == "5" and self.variants != tuple(VARIANTS):
            raise UserError("--variants is for --table 3; Table 5 trains SA-GAN.")


@dataclass(frozen=True)
class Task:
    """One run of the study."""

    arm: Arm
    seed: int
    folder: Path
    options: Options = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the run's folder and of its result."""
        return f"{self.arm.name}_seed_{self.seed}"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / self.name

    def train(self, steps: int | None) -> None:
        """Train for so many steps, or what is left of the minutes.

        Raises:
            StudyStoppedError: If it is stopped or fails.
        """
        arm, options = self.arm, self.options
        args = [
            *("--preset", arm.variant.preset, "--data", options.data, "--seed", str(self.seed)),
            *("--num-classes", "1", "--image-channels", "1"),
            *("--top-k-gamma", str(arm.gamma), "--top-k-floor", str(arm.floor)),
            *("--top-k-decay-images", str(options.decay_images)),
            *("--device", "cpu", "--threads", str(options.threads), "--sample-every", "0", "--checkpoint-every", "200"),
        ]
        if arm.players != "generator":
            args += ["--top-k-players", arm.players]
        if steps is None:
            train_for(self.run, find_recipe(arm.recipe), args, minutes=options.minutes)
        else:
            train_run(self.run, find_recipe(arm.recipe), args, steps=steps)

    def samples(self, count: int) -> Tensor:
        """Its samples 0 to count - 1."""
        trained = load_trained(run=self.run, weights=None, device=torch.device("cpu"))
        return draw_samples(trained, count, seed=SEED)[0]

    def measure(self, judges: "Judges") -> Result:
        """How far it came, and what its samples are like."""
        config = load_trained(run=self.run, weights=None, device=torch.device("cpu")).config
        step = RunFolder.open(self.run).saved_steps()[-1]
        ks = [entry["k"] for entry in RunFolder.open(self.run).read_log() if "k" in entry]
        how_far = {
            "steps": step,
            "images": config.images_before(step + 1),
            "seconds": RunFolder.open(self.run).trained_seconds(),
            "batch_size": config.batch_size,
            "k": ks[-1] if ks else config.batch_size,
        }
        return {**how_far, **judges.report(self.samples(self.options.num))}


class Judges(NamedTuple):
    """What samples are compared with the real images by."""

    images: DistributionJudge
    features: FeatureDistance | None

    def report(self, images: Tensor) -> Result:
        """All figures of some images."""
        found = self.images.report(images).as_dict()
        return found if self.features is None else found | {self.features.name: self.features.of(images)}


def carry_out(options: Options) -> Path:
    """Train and measure what is missing, and draw the sheet; the table is renewed after each run.

    Returns:
        The folder of the table.

    Raises:
        StudyStoppedError: If it is stopped by a signal.
        UserError: If runs failed; the others are trained and measured first.
    """
    torch.set_num_threads(options.threads)
    arms = ablations() if options.table == "5" else arms_with_and_without(options.variants)
    config = find_recipe(arms[0].variant.recipe).presets[arms[0].variant.preset]()
    real = load_images(options.data, resolution=config.resolution, channels=config.image_channels, num_classes=None)
    # Variants and seeds may be added later.
    fixed = ("table", "data", "minutes", "decay_images", "num", "features", "threads")
    # Before the study keeps the name of a network that there is not.
    network = None if options.features is None else load_network(options.features, config.resolution)
    study = Study(options.out / f"table_{options.table}", {name: getattr(options, name) for name in fixed})
    judge = DistributionJudge.of_images(real, seed=SEED)
    places = torch.linspace(0, len(judge.learned) - 1, min(len(judge.learned), SEEN_BY_NETWORK)).long()
    judges = Judges(judge, None if network is None else FeatureDistance.to_images(network, judge.learned[places]))

    def measure_real() -> Result:
        accuracy = judge.classifier.held_out_accuracy
        return {**judges.report(judge.held_out[: options.num]), "classifier_accuracy": accuracy}

    study.result(REAL, measure_real)
    # All arms of a seed before the next, so that a stopped study compares.
    tasks = [Task(arm, seed, study.folder, options) for seed in options.seeds for arm in arms]
    failed = [task for task in tasks if not _carry_out(task, study, judges, arms)]
    _draw_sheet(study, arms, options)
    if failed:
        raise UserError(f"{len(failed)} of {len(tasks)} runs have failed: {', '.join(task.name for task in failed)}.")
    return study.folder


def _carry_out(task: Task, study: Study, judges: Judges, arms: Sequence[Arm]) -> bool:
    """Train and measure a run that has not been; False if its training failed, which has been said."""
    if task.name not in study.results:
        tqdm.write(f"{task.name}:", file=sys.stderr)
        plain = next(arm for arm in arms if arm.variant == task.arm.variant)
        reference = study.results.get(replace(task, arm=plain).name)
        if not train_ok(partial(task.train, None if reference is None else reference["steps"])):
            return False
        study.keep(task.name, task.measure(judges))
        RunFolder.open(task.run).prune()
    text = _table(study.results, arms, task.options)
    replace_durably(study.folder / "table.md", text.encode(errors="backslashreplace"))  # a path may be no UTF-8
    return True


def _table(results: Mapping[str, Result], arms: Sequence[Arm], options: Options) -> str:
    real = results[REAL]
    levels = list(real["sliced_wasserstein"])
    distances = [name for name in real if name.startswith(("FD-", "FID"))]
    head = ["GAN" if options.table == "3" else "SA-GAN", "runs", "seconds", "steps", "batch", "images", "k"]
    head += ["FD-classifier", *distances, *(f"SWD {size}" for size in levels)]
    head += ["diversity", "novelty", "paper's FID, CIFAR-10"]
    rows = [[REAL, *[""] * 6, *_figures([real], distances, levels), ""]]
    for arm in arms:
        names = [f"{arm.name}_seed_{seed}" for seed in options.seeds]
        if measured := [results[name] for name in names if name in results]:
            counts = [mean_and_deviation([result[key] for result in measured], ".0f") for key in COUNTS]
            rows.append([arm.title, str(len(measured)), *counts, *_figures(measured, distances, levels), arm.paper])
    title = (
        f"{options.data} without classes, {options.threads} thread(s). Without top-k {options.minutes:g} minutes by the"
        f" clock, with it as many steps; k decayed every {options.decay_images:,} images. {options.num:,} samples;"
        " means over the runs (standard deviations). FD-classifier: Fréchet distance of the features of a classifier"
        f" that is right about {real['classifier_accuracy']:.3f} of the real images that it has not seen, which the"
        " first row consists of. SWD: sliced Wasserstein distance times 1,000, by level.\n\n"
    )
    return title + markdown_table(head, rows)


COUNTS = ("seconds", "steps", "batch_size", "images", "k")


def _figures(measured: Sequence[Result], distances: Sequence[str], levels: Sequence[str]) -> list[str]:
    return [
        mean_and_deviation([result["frechet"] for result in measured], ".3f"),
        *(mean_and_deviation([result[name] for result in measured], ".1f") for name in distances),
        *(mean_and_deviation([result["sliced_wasserstein"][size] for result in measured], ".1f") for size in levels),
        *(mean_and_deviation([result[name] for result in measured], ".2f") for name in ("diversity", "novelty")),
    ]


def _draw_sheet(study: Study, arms: Sequence[Arm], options: Options) -> None:
    """Samples of the first seed: a row for each kind of GAN or setting, a block of columns for each header."""
    tasks = [Task(arm, options.seeds[0], study.folder, options) for arm in arms]
    headers = list(dict.fromkeys(arm.header for arm in arms))
    rows = [tasks[start : start + len(headers)] for start in range(0, len(tasks), len(headers))]
    rows = [row for row in rows if all(task.name in study.results for task in row)]
    if rows:
        drawn = [torch.cat([row[column].samples(COLUMNS) for row in rows]) for column in range(len(headers))]
        captions = [row[0].arm.title for row in rows]
        save_sheet(study.folder / "sheet.png", *drawn, columns=COLUMNS, captions=captions, headers=headers)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry the study out; see ``python -m recipes.studies.top_k --help``."""
    return study_command("python -m recipes.studies.top_k", Options, carry_out, about=__doc__, args=argv)


if __name__ == "__main__":
    raise SystemExit(main())
