"""Measure the samples of a run against the real images that it was trained on.

Class agreement says whether samples show the class that was asked for, as judged by a small classifier that is trained
here and now on the real images and states its own accuracy. The diversity ratio falls below 1 when samples of a class
repeat themselves, and the novelty ratio when they copy training images; noise raises both, but has no class. A run
without classes has no agreement, and its diversity is that of all images.

--swd adds the sliced Wasserstein distance of ProGAN's paper, which compares the patches of samples and real images at
every scale, beside that of other real images and that of these blurred. --ms-ssim adds the mean similarity of pairs of
samples of one class, beside that of real images: it finds a lack of variation, if a gross one.

--features compares what a network makes of the images: Fréchet and kernel distance, the score of a classifier,
precision, recall, density and coverage, each beside that of other real images. --memorization asks whether D knows the
training images by heart. --images A --against B compares images that are there already, and needs no run.

Tested in ``tests/engine/commands/test_evaluate.py``.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.base.json_values import merged
from gan_blocks.engine.base.parallel.processes import current_world, joined_processes, main_rank_only
from gan_blocks.engine.base.terminal.command_line import parse_options, parse_some, run_command
from gan_blocks.engine.commands.evaluation.options import Options, one_run_each
from gan_blocks.engine.commands.evaluation.samples import Asked, Drawn, draw
from gan_blocks.engine.commands.evaluation.tables import Found, doubts, encoded, table
from gan_blocks.engine.commands.evaluation.truncation_sweep import evaluate_or_sweep
from gan_blocks.engine.evaluation.metric import Report
from gan_blocks.engine.evaluation.metrics import METRICS
from gan_blocks.engine.evaluation.real_side import RealSide
from gan_blocks.engine.recipe.next_steps import print_next_steps
from gan_blocks.engine.recipe.registry import find_recipe, is_registered
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.report import write_report

__all__ = ["Evaluation", "Options", "evaluate", "main"]


@dataclass(frozen=True)
class _Recipe:
    """The option that decides what the other options are."""

    recipe: str | None = None


class Evaluation(NamedTuple):
    """What was found."""

    reports: dict[str, Report]
    """By the names of the metrics that were asked for."""
    notes: tuple[str, ...] = ()
    """What makes the figures less telling than they look, a line each."""

    def as_dict(self, settings: Found | None = None) -> Found:
        """Plain values for JSON.

        Args:
            settings: Of what the figures are; they come first.

        Raises:
            UserError: If two metrics give a figure one name, or a setting has it.
        """
        parts = [("the settings", settings or {})]
        parts += [(f"the metric {name}", report.as_dict()) for name, report in self.reports.items()]
        try:
            return merged(parts)
        except ValueError as error:
            raise UserError(f"evaluation.json cannot hold all figures: {error}") from None

    def lines(self) -> list[str]:
        """Render for a console of 100 columns."""
        return [line for report in self.reports.values() for line in report.lines()]


def evaluate(options: Options, asked: Asked | None = None) -> Evaluation:
    """Draw the samples and measure them.

    Args:
        options: What to evaluate, and how.
        asked: Options of metrics, by the names of ``METRICS``; None: those that need none.
    """
    asked = asked or {}
    return _measure(asked, draw(options, asked))


def _measure(asked: Asked, drawn: Drawn) -> Evaluation:
    assert drawn.side is not None
    samples = drawn.side.samples(drawn.images, drawn.labels, critic=drawn.critic)
    found = {name: metric.measure(asked.get(name) or metric.options(), samples) for name, metric in METRICS.items()}
    reports = {name: report for name, report in found.items() if report is not None}
    return Evaluation(reports, tuple(doubts(reports, drawn.side.real)))


def _parse(prog: str, args: Sequence[str] | None) -> tuple[Options, dict[str, Fields]]:
    """Options of the command, and those of every metric by its name."""
    args = list(sys.argv[1:] if args is None else args)
    if (named := parse_some(_Recipe, args).recipe) is not None:
        find_recipe(named)  # which may add metrics
    parts: list[Any] = [("evaluation", Annotated[Options, tyro.conf.OmitArgPrefixes])]
    for name, metric in METRICS.items():
        parts.append((name, Annotated[metric.options, tyro.conf.OmitArgPrefixes], metric.options()))
    command: type[Any] = make_dataclass("Command", parts, frozen=True)
    examples = [
        (f"{prog} --run RUN", "agreement, diversity, novelty"),
        (f"{prog} --run RUN --swd 1000", "and the distance of patches"),
        (f"{prog} --run RUN --features efflite0-128", "and those of features"),
        (f"{prog} --images A --against B", "two folders, without a run"),
    ]
    parsed = parse_options(command, prog=prog, description=__doc__ or "", args=args, examples=examples)
    return parsed.evaluation, {name: getattr(parsed, name) for name in METRICS}


def _carry_out(options: Options, asked: Asked, known: RealSide | None) -> tuple[RealSide | None, Found]:
    """Draw, measure, print and save, in one process."""
    drawn = draw(options, asked, known)
    return drawn.side, _report(options, asked, drawn)


def _report(options: Options, asked: Asked, drawn: Drawn) -> Found:
    """Measure what was drawn, print and save it."""
    report = _measure(asked, drawn)
    folder = None if options.run is None else RunFolder.open(options.run)
    try:  # neither figures that cannot be saved nor a console that is gone shall lose them
        print("\n".join(report.lines()), flush=True)
    finally:
        found = report.as_dict(_settings(options, drawn, folder))
        path = options.out or (Path("evaluation.json") if folder is None else folder.evaluation_path)
        replace_durably(path, encoded(found), remedy="The figures above are not saved.")
    for note in report.notes:
        print(note)
    if folder is not None:
        write_report(folder, drawn.recipe.preset_values(folder.preset) if drawn.recipe else None)
        if sheet := folder.newest_samples():
            print(f"Sample sheet: {sheet}")
        return found
    print(f"Figures: {path}")
    return found


def _settings(options: Options, drawn: Drawn, folder: RunFolder | None) -> Found:
    """Of what the figures are."""
    if folder is None or drawn.source is None:
        sizes: Found = {"resolution": drawn.config.resolution, "image_channels": drawn.config.image_channels}
        return {name: getattr(options, name) for name in ("images", "against", "seed")} | sizes
    what: Found = {"weights": str(drawn.source.relative_to(folder.path))}
    what |= {name: getattr(options, name) for name in ("seed", "truncation", "truncation_by")}
    return what | {"sampling_precision": options.precision}  # a score is called precision


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks evaluate") -> int:
    """Evaluate and print; see ``gan-blocks evaluate --help``."""

    def command() -> int:
        lines = one_run_each(sys.argv[1:] if argv is None else argv)
        jobs = [_parse(prog, words) for words in lines]
        jobs = [(_of_its_recipe(options, several=len(jobs) > 1), asked) for options, asked in jobs]
        alone = len(jobs) == 1 and not jobs[0][0].truncation_sweep
        with joined_processes(jobs[0][0].device) as device:
            jobs = [(replace(options, device=device), asked) for options, asked in jobs]
            if not alone and current_world().size > 1:
                problem = "several runs and --truncation-sweep are for one process: leave out torchrun."
                raise main_rank_only(UserError(problem))
            drawn = draw(*jobs[0]) if alone else None
            if not current_world().is_main:
                return 0
        if drawn is not None:
            _report(*jobs[0], drawn)
            print_next_steps(jobs[0][0].next_steps(drawn.config.num_classes))
        elif len(jobs) == 1:
            evaluate_or_sweep(*jobs[0], _carry_out)
        else:
            _compare(jobs)
        return 0

    return run_command("evaluate", command)


def _of_its_recipe(options: Options, *, several: bool) -> Options:
    """Of several runs ``--recipe`` is for those that need one."""
    if options.run is None:
        return options
    registered = is_registered(RunFolder.open(options.run).recipe)
    return replace(options, recipe=None) if several and registered else options


def _compare(jobs: Sequence[tuple[Options, Asked]]) -> None:
    """Evaluate one run after the other, and print a table of all."""
    found: dict[str, Found] = {}
    for options, asked in jobs:
        print(f"{options.run}:")
        found[str(options.run)] = evaluate_or_sweep(replace(options, out=None), asked, _carry_out)
        print()
    print("\n".join(table(found)))
    if (out := jobs[0][0].out) is not None:
        replace_durably(out, encoded({"runs": found}), remedy="The figures above are not saved.")
