"""Measure the samples of a run against the real images that it was trained on.

Class agreement says whether samples show the class that was asked for, as judged by a small classifier that is trained
here and now on the real images and states its own accuracy. The diversity ratio falls below 1 when samples of a class
repeat themselves, and the novelty ratio when they copy training images; noise raises both, but has no class. A run
without classes has no agreement, and its diversity is that of all images.

--swd adds the sliced Wasserstein distance of ProGAN's paper, which compares the patches of samples and real images at
every scale, beside that of other real images and that of these blurred. --ms-ssim adds the mean similarity of pairs of
samples of one class, beside that of real images: it finds a lack of variation, if a gross one.

Tested in ``tests/engine/commands/test_evaluate.py``.
"""

import json
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

from gan_blocks.engine.base.checks import Fields, check_threads, require, require_at_least
from gan_blocks.engine.base.command_line import parse_options, parse_some, run_command
from gan_blocks.engine.base.devices import torch_device
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.base.memory import check_disk_space
from gan_blocks.engine.base.processes import current_world, decided_by_main, joined_processes, require_same
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.evaluation.image_rows import ImageRows, RealImages, StoredImages
from gan_blocks.engine.evaluation.metric import Plan, Report, Samples
from gan_blocks.engine.evaluation.metrics import METRICS
from gan_blocks.engine.evaluation.quality import check_same_size
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.registry import find_recipe
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.report import write_report
from gan_blocks.engine.sampling.inference import SamplingPrecision
from gan_blocks.engine.sampling.samples import (
    TruncationKind,
    check_truncation,
    draw_samples,
    drawn_shape,
    even_labels,
    sample_batches,
    truncated,
)
from gan_blocks.engine.sampling.trained import TrainedGenerator, load_trained

__all__ = ["Evaluation", "Options", "evaluate", "main"]

DEFAULT_NUM = 1000
IN_MEMORY = 2**27  # bytes of samples; more are kept in a temporary file


@dataclass(frozen=True)
class Options(Fields):
    """What to evaluate, and how."""

    run: Path
    """Folder of a run; the moving average of its newest checkpoint is evaluated, with standing statistics."""

    recipe: str | None = None
    """The recipe that made the run, where it is none that is registered: its file (my_gan.py) or module."""

    num: int | None = None
    """How many samples, classes evenly (default: 1000, or two of each class where these are more)."""

    truncation: float | None = None
    """Truncate z: less is better looking and less varied (default: no truncation)."""

    truncation_by: TruncationKind | None = None
    """What the number means. threshold: components beyond it are drawn again (the paper's, default). scaled: it times a
    normal distribution cut at 2 (the released models')."""

    seed: int = 0
    """Seed of the latents, of the classifier, of patches and pairs."""

    data: str | None = None
    """Where the real images are, when they have moved since the training."""

    precision: SamplingPrecision = "fp32"
    """Draw the samples in fp32 or bf16 (autocast, faster where the processor has it)."""

    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, ... or auto."""

    threads: int | None = None
    """CPU threads (default: torch's choice); another number gives other last bits."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if self.num is not None:
            require_at_least(self, 2, "num")
        require(self, "seed", -(2**63) <= self.seed < 2**63, "a whole number of 64 bits")
        check_threads(self.threads)
        check_truncation(self.truncation, self.truncation_by)


@dataclass(frozen=True)
class _Recipe:
    """The option that decides what the other options are."""

    recipe: str | None = None


Asked = Mapping[str, Fields]
"""Options of metrics, by the names of the table; the others have their defaults."""


class Drawn(NamedTuple):
    """The samples of a run, and the real images to compare them with."""

    config: TrainingConfig
    source: Path
    """The file that the weights came from."""
    images: ImageRows
    labels: Tensor
    real: ImageSet | None
    """None in other processes than the main one."""


class Evaluation(NamedTuple):
    """What was found."""

    reports: dict[str, Report]
    """By the names of the metrics that were asked for."""

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


def _draw(options: Options, asked: Asked) -> Drawn:
    """Draw the samples once all that can be checked has been; several processes generate a part each."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    trained = load_trained(run=options.run, weights=None, device=torch_device(options.device), recipe=options.recipe)
    trained = replace(trained, precision=options.precision)
    require_same("the file of the weights", str(trained.source))
    if current_world().is_main:
        for note in trained.notes:
            print(note)
    trained = truncated(trained, options.truncation, options.truncation_by)
    real: list[ImageSet] = []

    def load_and_check() -> tuple[int, list[int]]:
        images, notes = trained.load_images(options.data)
        for note in notes:
            print(note)
        real.append(images)
        classes = _classes_to_draw(trained, real[0])
        count = len(classes) or trained.config.num_classes
        num = max(DEFAULT_NUM, 2 * count) if options.num is None else options.num
        shape = drawn_shape(trained)
        check_same_size(shape, real[0].layout.shape)
        plan = Plan(trained.config, num, real[0])
        for name, metric in METRICS.items():
            metric.check(asked.get(name) or metric.options(), plan)
        if num * _image_bytes(shape) > IN_MEMORY:
            check_disk_space("--num", num, _image_bytes(shape), Path(tempfile.gettempdir()))
        return num, classes

    num, classes = decided_by_main(load_and_check)
    images, labels = _draw_images(trained, num, classes, options.seed)
    return Drawn(trained.config, trained.source, images, labels, real[0] if real else None)


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


def _draw_images(trained: TrainedGenerator, num: int, classes: Sequence[int], seed: int) -> tuple[ImageRows, Tensor]:
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


def _measure(options: Options, asked: Asked, drawn: Drawn) -> Evaluation:
    assert drawn.real is not None
    samples = Samples(
        drawn.images,
        drawn.labels,
        RealImages(drawn.real),
        drawn.real.labels,
        drawn.config.num_classes,
        options.seed,
        drawn.real.class_names,
    )
    found = {name: metric.measure(asked.get(name) or metric.options(), samples) for name, metric in METRICS.items()}
    return Evaluation({name: report for name, report in found.items() if report is not None})


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
    ]
    parsed = parse_options(command, prog=prog, description=__doc__ or "", args=args, examples=examples)
    return parsed.evaluation, {name: getattr(parsed, name) for name in METRICS}


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks evaluate") -> int:
    """Evaluate and print; see ``gan-blocks evaluate --help``."""

    def command() -> int:
        options, asked = _parse(prog, argv)
        folder = RunFolder.open(options.run)
        with joined_processes(options.device) as device:
            options = replace(options, device=device)
            drawn = _draw(options, asked)
            if not current_world().is_main:
                return 0
        report = _measure(options, asked, drawn)
        try:  # neither figures that cannot be saved nor a console that is gone shall lose them
            print("\n".join(report.lines()), flush=True)
        finally:
            what = {"weights": str(drawn.source.relative_to(folder.path))}
            what |= {name: getattr(options, name) for name in ("seed", "truncation", "truncation_by", "precision")}
            found = json.dumps(what | report.as_dict(), indent=2).encode() + b"\n"
            replace_durably(folder.evaluation_path, found, remedy="The figures above are not saved.")
        write_report(folder)
        if sheet := folder.newest_samples():
            print(f"Sample sheet: {sheet}")
        return 0

    return run_command("evaluate", command)
