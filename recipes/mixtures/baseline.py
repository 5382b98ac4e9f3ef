"""Which of the settings that Sinha et al. 2020 leave out bring plain training nearest to Table 1's row of 25 modes.

Each setting is the first one but for a change; then the best two changes, of different options, are made together. All
are trained to one step with the same two seeds, and the one nearest to the paper at that step is trained again with
seeds that had no part in its choice. Top-k has no part in it either.

Tested in ``tests/recipes/test_mixture_baseline.py``.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gan_blocks.engine import UserError
from gan_blocks.engine.base import StopRequest, replace_durably
from gan_blocks.engine.pictures import new_figure, save_figure
from gan_blocks.engine.studies import (
    Result,
    Study,
    StudyStoppedError,
    StudyTask,
    carry_out_side_by_side,
    markdown_table,
)
from recipes.mixtures.config import Config
from recipes.mixtures.session import MixtureOptions, MixtureSession
from recipes.mixtures.table import PAPER

__all__ = ["StudyStoppedError", "study_baseline"]

STEPS = 50_000
MODES = 25
QUALITY, RECOVERED = (plain for plain, _ in PAPER[MODES])
SEEDS, FRESH_SEEDS = 2, 3  # to choose by, and to confirm the choice

Change = Mapping[str, Any]
"""Fields of the Config."""

FIRST: Change = {
    "divide_by": "nothing",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "activation": "relu",
    "latent_dim": 2,
    "hidden_layers": 4,
    "init": "torch",
}
# Options, each with its changes by name. Divided by the deviation, 25 modes are what they are divided by 2.828, to 3
# parts in 10,000: how these two differ is how much chance does.
CHANGES: Mapping[str, Mapping[str, Change]] = {
    "scale": {
        "divided_by_2.828": {"divide_by": "2.828"},
        "divided_by_deviation": {"divide_by": "deviation"},
    },
    "betas": {
        f"betas_{beta1:g}_{beta2:g}": {"adam_beta1": beta1, "adam_beta2": beta2}
        for beta1, beta2 in ((0.5, 0.999), (0.5, 0.9), (0.0, 0.9))
    },
    "activation": {name: {"activation": name} for name in ("leaky-relu", "tanh")},
    "z": {f"z_{size}": {"latent_dim": size} for size in (128, 256)},
    "depth": {"three_hidden_layers": {"hidden_layers": 3}},
    "init": {"he": {"init": "he"}},
}

OpenSession = Callable[[Config, MixtureOptions, Path], MixtureSession]


@dataclass(frozen=True)
class Task(StudyTask):
    """A setting, trained with some seeds."""

    setting: str
    config: Config
    study: Path
    steps: int

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.study

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / self._name

    @property
    def name(self) -> str:
        """Name of the result: a study may be carried on to more steps."""
        return f"{self._name}_at_{self.steps}"

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.setting.replace('_', ' ')}{'' if self.config.seed == 0 else ', fresh seeds'}"

    @property
    def _name(self) -> str:
        return self.setting if self.config.seed == 0 else f"{self.setting}_fresh_seeds"


def study_baseline(
    config: Config, options: MixtureOptions, folder: Path, *, session: OpenSession, stop: StopRequest
) -> Path:
    """Carry out what is missing; table and figure are renewed after each setting.

    Args:
        config: What all settings share: they set arms, modes, seeds, and the fields that they compare.
        options: How; ``steps`` is 50,000 unless it is set. More continue all runs.
        folder: Where everything is.
        session: Opens a run.
        stop: A stop that was asked for.

    Returns:
        The table.

    Raises:
        StudyStoppedError: If it is stopped by a signal.
        UserError: If a run diverged, or the folder holds another study.
    """
    shared = replace(config, **FIRST, arms="plain", modes=MODES, seed=0, seeds=SEEDS)
    study = Study(folder, {name: value for name, value in asdict(shared).items() if name not in FIRST})
    steps = STEPS if options.steps is None else options.steps
    task = partial(_task, shared, folder, steps)

    def work(task: Task) -> Result:
        return _train(session(task.config, replace(options, steps=steps), task.run), task, stop)

    done: list[Task] = []

    def carry_out(tasks: Sequence[Task]) -> None:
        done.extend(tasks)
        carry_out_side_by_side(study, tasks, work, processes=1, kept=renew)

    def renew(_task: Task, result: Result) -> str:
        _write(folder, done, study.results, steps)
        return f"{_numbers(result['high_quality'])} % near, {_numbers(result['recovered'])} % of modes"

    singles = {name: change for changes in CHANGES.values() for name, change in changes.items()}
    carry_out([task("first", {}), *(task(name, change) for name, change in singles.items())])
    best = _best_changes(done, study.results)
    carry_out([task("+".join(best), {field: value for name in best for field, value in singles[name].items()})])
    chosen = min(done, key=lambda task: study.results[task.name]["distance"])
    carry_out([replace(chosen, config=replace(chosen.config, seed=SEEDS, seeds=FRESH_SEEDS))])
    _write(folder, done, study.results, steps)
    return folder / "table.md"


def _task(shared: Config, folder: Path, steps: int, name: str, change: Change) -> Task:
    return Task(name, replace(shared, **change), folder, steps)


def _train(session: MixtureSession, task: Task, stop: StopRequest) -> Result:
    if session.step > task.steps:
        raise UserError(f"--steps must be at least {session.step}, which {task.run} has, but got {task.steps}.")
    scores = session.carry_out(stop)
    if scores is None:
        raise StudyStoppedError(128 + stop.signal)
    measured = {name: values for name, (values,) in scores.items()}
    return {"steps": task.steps, "seeds": list(task.config.all_seeds()), **measured, "distance": _distance(**measured)}


def _distance(high_quality: Sequence[float], recovered: Sequence[float]) -> float:
    """Points between the paper's row and a seed's, high quality and modes together; the mean over the seeds."""
    pairs = zip(high_quality, recovered, strict=True)
    return statistics.fmean(abs(quality - QUALITY) + abs(modes - RECOVERED) for quality, modes in pairs)


def _best_changes(tasks: Sequence[Task], results: Mapping[str, Result]) -> list[str]:
    """The change that comes nearest to the paper, and the best of another option."""
    distances = {task.setting: results[task.name]["distance"] for task in tasks}
    of_each = [min(changes, key=lambda name: distances[name]) for changes in CHANGES.values()]
    return sorted(of_each, key=lambda name: distances[name])[:2]


def _write(folder: Path, tasks: Sequence[Task], results: Mapping[str, Result], steps: int) -> None:
    measured = [task for task in tasks if task.name in results]
    rows = [
        [
            task.shown,
            ", ".join(map(str, results[task.name]["seeds"])),
            _numbers(results[task.name]["high_quality"]),
            _numbers(results[task.name]["recovered"]),
            f"{results[task.name]['distance']:.1f}",
        ]
        for task in measured
    ]
    title = (
        f"Plain training of {MODES} modes to step {steps:,}; the paper has {QUALITY} % and {RECOVERED:g} %. Distance: "
        "points from the paper's row, high quality and modes together, mean over the seeds."
    )
    head = ["setting", "seeds", "high quality, %, by seed", "modes recovered, %, by seed", "distance"]
    replace_durably(folder / "table.md", f"{title}\n\n{markdown_table(head, rows)}".encode())
    _draw(folder / "settings.png", measured, results)


def _draw(path: Path, tasks: Sequence[Task], results: Mapping[str, Result]) -> None:
    """A row for each setting, a point for each seed, the paper's figure as a line."""
    figure = new_figure(9, 1.2 + 0.32 * len(tasks), dpi=90)
    panels = figure.subplots(1, 2, sharey=True)
    measures = {"high_quality": ("high quality, %", QUALITY), "recovered": ("modes recovered, %", RECOVERED)}
    for axes, (measure, (label, paper)) in zip(panels, measures.items(), strict=True):
        axes.axvline(paper, color="tab:orange", label="paper")
        for row, task in enumerate(tasks):
            values = results[task.name][measure]
            axes.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.7)
        axes.set(xlabel=label, xlim=(-3, 103))
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_yticks(range(len(tasks)), [task.shown for task in tasks])
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right")
    save_figure(path, figure)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)
