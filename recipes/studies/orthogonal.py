"""Study whether orthogonal regularization makes a generator amenable to truncation (Brock et al. 2018, section 3.1).

Trains the same preset with each of several coefficients of equation 3 and each of several seeds, then measures samples
at each truncation: the share that a classifier takes for the class that was asked for, and the spread within a class
beside that of the real images. The paper found 60% of its models amenable with a coefficient of 1e-4, 16% without.

The folder gets ``table.md``, and for each coefficient a sheet of the first seed: one row a class, and for each
truncation a block of columns, the same few latents. Run the same command again to continue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from gan_blocks import SharedEmbedding, orthogonal_regularization
from gan_blocks.engine import (
    ImageSet,
    TrainedGenerator,
    UserError,
    draw_samples,
    find_recipe,
    load_trained,
    require_at_least,
)
from gan_blocks.engine.base import check_threads, replace_durably
from gan_blocks.engine.data import class_name, load_images_of
from gan_blocks.engine.evaluation import RealImages, check_sample_count, measure_quality
from gan_blocks.engine.pictures import save_sheet
from gan_blocks.engine.sampling import check_truncation, spread_classes, truncated
from gan_blocks.engine.studies import Result, Study, markdown_table, mean_and_deviation, study_command

__all__ = ["Options", "main"]

LATENTS_ON_SHEET = 3  # for each truncation
SEED = 0  # of the samples and of the classifier
CHECKPOINT_EVERY = 100


@dataclass(frozen=True)
class Options:
    """What to train and measure."""

    out: Path = Path("runs/orthogonal_study")
    """Folder of the study."""

    recipe: str = "biggan_deep"
    """Training recipe; its Config needs --generator-orthogonal-penalty."""

    preset: str = "mnist5k-32"
    """The preset that all runs share."""

    coefficients: tuple[float, ...] = (0.0, 1e-4)
    """Coefficients of equation 3 in G's loss."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the training, for each coefficient."""

    truncations: tuple[float, ...] = (2.0, 1.0, 0.5, 0.04)
    """Thresholds beyond which components of z are drawn again."""

    steps: int = 1000
    """Length of each run."""

    num: int = 1000
    """Samples that are measured at each truncation."""

    threads: int = 1
    """CPU threads."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("coefficients", "seeds", "truncations"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UserError(f"--{name} must be one or more different numbers, but got {_shown(values) or 'none'}.")
        if min(self.coefficients) < 0:
            raise UserError(f"--coefficients must each be at least 0, but got {_shown(self.coefficients)}.")
        require_at_least(self, 1, "steps")
        check_threads(self.threads)
        require_at_least(self, 2, "num")
        for truncation in self.truncations:
            check_truncation(truncation)


def carry_out(options: Options) -> Path:
    """Train, measure and draw what is missing; the table in the folder that is returned is renewed after each run.

    Raises:
        StudyStoppedError: If it is stopped by a signal, or a run fails.
    """
    torch.set_num_threads(options.threads)
    recipe = find_recipe(options.recipe)
    preset = recipe.choose_preset(options.preset)
    fixed = ("recipe", "steps", "num", "threads")  # coefficients, seeds and truncations may be added later
    config = recipe.presets[preset]()
    check_sample_count(options.num, config.num_classes)
    study = Study(options.out, {name: getattr(options, name) for name in fixed} | {"preset": preset})
    real = load_images_of(config)
    for seed in options.seeds:  # all coefficients of a seed before the next, so that a stopped study compares
        for coefficient in options.coefficients:
            name = _run_name(coefficient, seed)
            run = study.train(name, recipe, _args(options, coefficient, seed), steps=options.steps)
            trained = load_trained(run=run, weights=None, device=torch.device("cpu"), recipe=recipe)
            study.result(name, partial(_measure_weights, trained))
            for truncation in options.truncations:
                key = _key(coefficient, seed, truncation)
                study.result(key, partial(_measure_samples, trained, real, truncation, options.num))
            if seed == options.seeds[0]:
                _draw_sheet(trained, real, options.truncations, options.out / f"sheet_{_exact(coefficient)}.png")
            replace_durably(options.out / "table.md", _table(study, options).encode())
    return options.out


def _args(options: Options, coefficient: float, seed: int) -> list[str]:
    return [
        *("--preset", options.preset, "--generator-orthogonal-penalty", str(coefficient), "--seed", str(seed)),
        *("--threads", str(options.threads), "--checkpoint-every", str(CHECKPOINT_EVERY), "--sample-every", "0"),
    ]


def _measure_weights(trained: TrainedGenerator) -> Result:
    embeddings = [module for module in trained.average.modules() if isinstance(module, SharedEmbedding)]
    return {"equation_3": orthogonal_regularization(trained.average, exclude=embeddings).item()}


def _measure_samples(trained: TrainedGenerator, real: ImageSet, truncation: float, count: int) -> Result:
    images, labels = draw_samples(truncated(trained, truncation), count, seed=SEED)
    num_classes = trained.config.num_classes
    report = measure_quality(images, labels, RealImages(real), real.labels, num_classes=num_classes, seed=SEED)
    return report.as_dict()


def _draw_sheet(trained: TrainedGenerator, real: ImageSet, truncations: Sequence[float], path: Path) -> None:
    classes = spread_classes(trained.config.num_classes)
    count = LATENTS_ON_SHEET * len(classes)
    drawn = [draw_samples(truncated(trained, t), count, seed=SEED, classes=classes)[0] for t in truncations]
    captions = [class_name(real.class_names, label) for label in classes]
    headers = [f"{truncation:g}" for truncation in truncations]
    save_sheet(path, *drawn, columns=LATENTS_ON_SHEET, captions=captions, headers=headers)


def _table(study: Study, options: Options) -> str:
    """Agreement / diversity by coefficient and truncation, as means over the seeds that are measured."""
    head = ["coefficient", "runs", "equation 3", *(f"truncation {truncation:g}" for truncation in options.truncations)]
    rows: list[list[str]] = []
    for coefficient in options.coefficients:
        seeds = [s for s in options.seeds if _key(coefficient, s, options.truncations[-1]) in study.results]
        if not seeds:
            continue
        weights = [study.results[_run_name(coefficient, seed)] for seed in seeds]
        strengths = mean_and_deviation([result["equation_3"] for result in weights], ".3g")
        cells = [f"{coefficient:g}", str(len(seeds)), strengths]
        for truncation in options.truncations:
            results = [study.results[_key(coefficient, seed, truncation)] for seed in seeds]
            shares = ([result[name] for result in results] for name in ("agreement", "diversity"))
            cells.append(" / ".join(mean_and_deviation(values, ".3f") for values in shares))
        rows.append(cells)
    title = "Class agreement / diversity ratio of samples; means over the runs (standard deviations).\n\n"
    return title + markdown_table(head, rows)


def _run_name(coefficient: float, seed: int) -> str:
    return f"coefficient_{_exact(coefficient)}_seed_{seed}"


def _key(coefficient: float, seed: int, truncation: float) -> str:
    return f"{_run_name(coefficient, seed)}_truncation_{_exact(truncation)}"


def _exact(value: float) -> str:
    """As short as it can be told from every other number: names of files and results must differ where values do."""
    return repr(float(value)).removesuffix(".0")


def _shown(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry the study out; see ``python -m recipes.studies.orthogonal --help``."""
    return study_command("python -m recipes.studies.orthogonal", Options, carry_out, about=__doc__, args=argv)


if __name__ == "__main__":
    raise SystemExit(main())
