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

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import tyro
from torch import Tensor

from gan_blocks import Rows
from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.command_line import parse_options, parse_some, run_command
from gan_blocks.engine.base.devices import notes_on_precision, torch_device
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.base.memory import check_disk_space
from gan_blocks.engine.base.processes import (
    current_world,
    decided_by_main,
    joined_processes,
    main_rank_only,
    require_same,
)
from gan_blocks.engine.commands.evaluate_images import load_given_images
from gan_blocks.engine.commands.evaluate_options import Options, one_run_each
from gan_blocks.engine.commands.evaluate_tables import Found, doubts, encoded, table
from gan_blocks.engine.commands.truncation_sweep import evaluate_or_sweep
from gan_blocks.engine.data.config import ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.evaluation.features.cache import Cache
from gan_blocks.engine.evaluation.image_rows import RealImages, StoredImages
from gan_blocks.engine.evaluation.memorization import MEMORIZATION, Critic
from gan_blocks.engine.evaluation.metric import Plan, Report
from gan_blocks.engine.evaluation.metrics import METRICS
from gan_blocks.engine.evaluation.quality import check_same_size
from gan_blocks.engine.evaluation.real_side import RealSide
from gan_blocks.engine.recipe.next_steps import print_next_steps
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.registry import find_recipe
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.report import write_report
from gan_blocks.engine.sampling.samples import (
    draw_samples,
    drawn_shape,
    even_labels,
    sample_batches,
    truncated,
)
from gan_blocks.engine.sampling.trained import TrainedGenerator, load_critic, load_trained

__all__ = ["Evaluation", "Options", "evaluate", "main"]

DEFAULT_NUM = 1000
IN_MEMORY = 2**27  # bytes of samples; more are kept in a temporary file


@dataclass(frozen=True)
class _Recipe:
    """The option that decides what the other options are."""

    recipe: str | None = None


Asked = Mapping[str, Fields]
"""Options of metrics, by the names of the table; the others have their defaults."""


class Drawn(NamedTuple):
    """The samples of a run, or images that were given, and the real images to compare them with."""

    config: ImageFields
    source: Path | None
    """The file that the weights came from; None where images were given."""
    images: Rows
    labels: Tensor
    side: RealSide | None
    """The real images; None in other processes than the main one."""
    critic: Critic | None = None
    """D of the run, where it is asked."""
    recipe: Recipe[Any] | None = None
    """That made the run; None for images from elsewhere."""


class Evaluation(NamedTuple):
    """What was found."""

    reports: dict[str, Report]
    """By the names of the metrics that were asked for."""
    notes: tuple[str, ...] = ()
    """What makes the figures less telling than they look, a line each."""

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {name: value for report in self.reports.values() for name, value in report.as_dict().items()}

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
    return _measure(options, asked, _draw(options, asked))


def _draw(options: Options, asked: Asked, known: RealSide | None = None) -> Drawn:
    """Draw the samples once all that can be checked has been; several processes generate a part each.

    Args:
        options: What to evaluate, and how.
        asked: Options of metrics, by their names.
        known: The real images, where the same run was drawn from before.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.images is not None:
        return _given(options, asked)
    device = torch_device(options.device)
    trained = load_trained(run=options.run, weights=None, device=device, recipe=options.recipe)
    trained = replace(trained, precision=options.precision)
    require_same("the file of the weights", str(trained.source))
    if current_world().is_main:
        for note in trained.notes:
            print(note)
    trained = truncated(trained, options.truncation, options.truncation_by)
    sides: list[RealSide] = [] if known is None else [known]
    critics: list[Critic] = []

    def load_and_check() -> tuple[int, list[int]]:
        if not sides:
            sides.append(_real_side(options, trained, device))
        if getattr(asked.get(MEMORIZATION.name), "memorization", 0):
            assert options.run is not None
            critics.append(load_critic(options.run, device=device, recipe=options.recipe))
        real = sides[0].real
        classes = _classes_to_draw(trained, real)
        count = len(classes) or trained.config.num_classes
        num = max(DEFAULT_NUM, 2 * count) if options.num is None else options.num
        shape = drawn_shape(trained)
        check_same_size(shape, real.layout.shape)
        plan = Plan(trained.config, num, real, held_out=sides[0].held_out, features=options.features)
        _check(asked, plan)
        if num * _image_bytes(shape) > IN_MEMORY:
            check_disk_space("--num", num, _image_bytes(shape), Path(tempfile.gettempdir()))
        return num, classes

    num, classes = decided_by_main(load_and_check)
    images, labels = _draw_images(trained, num, classes, options.seed)
    side, critic = sides[0] if sides else None, critics[0] if critics else None
    return Drawn(trained.config, trained.source, images, labels, side, critic, trained.recipe)


def _check(asked: Asked, plan: Plan) -> None:
    for name, metric in METRICS.items():
        metric.check(asked.get(name) or metric.options(), plan)


def _real_side(options: Options, trained: TrainedGenerator, device: torch.device) -> RealSide:
    """The images of the run, and the network to look at them with."""
    real, held_out, notes = trained.load_split(options.data)
    for note in notes:
        print(note)
    return _side(options, real, held_out, trained.config.num_classes, device)


def _side(
    options: Options, real: ImageSet, held_out: ImageSet | None, num_classes: int, device: torch.device
) -> RealSide:
    default = options.run / "features" if options.run is not None and options.features is not None else None
    return RealSide.of(
        real,
        held_out,
        num_classes=num_classes,
        seed=options.seed,
        cache=Cache(options.cache or default),
        features=options.features,
        device=device,
    )


def _given(options: Options, asked: Asked) -> Drawn:
    """The images that --images and --against name, in the main process; nothing in the others."""
    drawn = [Drawn(ImageFields(), None, torch.empty(0), torch.empty(0), None)]

    def load_and_check() -> None:
        assert options.images is not None
        assert options.against is not None
        given = load_given_images(options.images, options.against, options.resolution)
        for note in given.notes:
            print(note)
        images = given.images
        _check(asked, Plan(given.config, len(images), given.real, given=images, features=options.features))
        side = _side(options, given.real, None, given.config.num_classes, torch_device(options.device))
        drawn[0] = Drawn(given.config, None, RealImages(images), images.labels, side)

    decided_by_main(load_and_check)
    return drawn[0]


def _classes_to_draw(trained: TrainedGenerator, real: ImageSet) -> list[int]:
    """The classes with real images to compare with, which is noted; none where these are all."""
    classes: list[int] = real.labels.unique().tolist()
    config = trained.config
    missing = sorted(set(range(config.num_classes)).difference(classes))
    if not missing:
        return []
    which = f"{len(missing):,} of {config.num_classes:,} classes, such as class {trained.name_of(missing[0])}"
    print(f"Left out, for want of real images: {which}.")
    return classes


def _draw_images(trained: TrainedGenerator, num: int, classes: Sequence[int], seed: int) -> tuple[Rows, Tensor]:
    """Samples as they are shown and saved, between -1 and 1: not every G is bounded. Many are kept on the disk."""
    shape = drawn_shape(trained)
    if num * _image_bytes(shape) <= IN_MEMORY:
        some: dict[str, Any] = {"classes": classes} if classes else {}
        images, labels = draw_samples(trained, num, seed=seed, **some)
        return images.clamp_(-1, 1), labels
    labels = even_labels(num, classes or range(trained.config.num_classes))
    batches = sample_batches(trained, labels, seed=seed)
    shown = ((numbers, images.clamp_(-1, 1)) for numbers, images in batches)
    if current_world().is_main:
        return StoredImages((num, *shape), shown), labels
    for _ in shown:  # their part of each
        pass
    return torch.empty(0, *shape), labels


def _image_bytes(shape: Sequence[int]) -> int:
    return 4 * math.prod(shape)


def _measure(_options: Options, asked: Asked, drawn: Drawn) -> Evaluation:
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
    drawn = _draw(options, asked, known)
    return drawn.side, _report(options, asked, drawn)


def _report(options: Options, asked: Asked, drawn: Drawn) -> Found:
    """Measure what was drawn, print and save it."""
    report = _measure(options, asked, drawn)
    folder = None if options.run is None else RunFolder.open(options.run)
    try:  # neither figures that cannot be saved nor a console that is gone shall lose them
        print("\n".join(report.lines()), flush=True)
    finally:
        found = _settings(options, drawn, folder) | report.as_dict()
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
    return what | {name: getattr(options, name) for name in ("seed", "truncation", "truncation_by", "precision")}


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks evaluate") -> int:
    """Evaluate and print; see ``gan-blocks evaluate --help``."""

    def command() -> int:
        lines = one_run_each(sys.argv[1:] if argv is None else argv)
        jobs = [_parse(prog, words) for words in lines]
        for options, _ in jobs:
            if options.run is not None:
                RunFolder.open(options.run)
        alone = len(jobs) == 1 and not jobs[0][0].truncation_sweep
        with joined_processes(jobs[0][0].device) as device:
            jobs = [(replace(options, device=device), asked) for options, asked in jobs]
            if current_world().is_main:
                for note in notes_on_precision(jobs[0][0].precision, torch_device(device)):
                    print(note)
            if not alone and current_world().size > 1:
                problem = "several runs and --truncation-sweep are for one process: leave out torchrun."
                raise main_rank_only(UserError(problem))
            drawn = _draw(*jobs[0]) if alone else None
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
