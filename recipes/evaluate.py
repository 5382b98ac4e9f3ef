"""Measure the samples of a run against the real images that it was trained on.

Class agreement says whether samples show the class that was asked for, as judged by a small classifier that is trained
here and now on the real images and states its own accuracy. The diversity ratio falls below 1 when samples of a class
repeat themselves, and the novelty ratio when they copy training images; noise raises both, but has no class. A run
without classes has no agreement, and its diversity is that of all images.

--swd adds the sliced Wasserstein distance of ProGAN's paper, which compares the patches of samples and real images at
every scale, beside that of other real images and that of these blurred. --ms-ssim adds the mean similarity of pairs of
samples of one class, beside that of real images: it finds a lack of variation, if a gross one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from recipes._engine.command_line import parse_options, run_command
from recipes._engine.config_checks import require_at_least
from recipes._engine.data import load_images_of
from recipes._engine.distributed import current_world, joined_processes
from recipes._engine.durable_files import replace_durably
from recipes._engine.options import torch_device
from recipes._engine.pair_similarity import PairReport, check_pair_size, measure_pairs
from recipes._engine.patch_distances import PatchReport, check_patch_sizes, check_real_images, measure_patches
from recipes._engine.quality import QualityReport, measure_quality
from recipes._engine.recipe import RecipeConfig
from recipes._engine.report import write_report
from recipes._engine.run_folder import RunFolder
from recipes._engine.sampling import TruncationKind, check_truncation, draw_samples, truncated
from recipes._engine.trained import load_trained

__all__ = ["Evaluation", "Options", "evaluate", "main"]


@dataclass(frozen=True)
class Options:
    """What to evaluate, and how."""

    run: Path
    """Folder of a run; the moving average of its newest checkpoint is evaluated, with standing statistics."""

    num: int = 1000
    """How many samples, classes evenly."""

    truncation: float | None = None
    """Truncate z: less is better looking and less varied (default: no truncation)."""

    truncation_by: TruncationKind | None = None
    """What the number means. threshold: components beyond it are drawn again (the paper's, default). scaled: it times a
    normal distribution cut at 2 (the released models')."""

    swd: int = 0
    """Images of each set for the sliced Wasserstein distance, at most --num and half of the real ones; 0: none."""

    ms_ssim: int = 0
    """Pairs of samples of one class to compare by their multi-scale structural similarity (ProGAN: 10000); 0: none."""

    seed: int = 0
    """Seed of the latents, of the classifier, of patches and pairs."""

    data: str | None = None
    """Where the real images are, when they have moved since the training."""

    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, ... or auto."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_at_least(self, 2, "num")
        require_at_least(self, 0, "swd", "ms_ssim")
        check_truncation(self.truncation, self.truncation_by)


class Drawn(NamedTuple):
    """The samples of a run."""

    config: RecipeConfig
    source: Path
    """The file that the weights came from."""
    images: Tensor
    labels: Tensor


class Evaluation(NamedTuple):
    """What was found; patches and pairs where they were asked for."""

    quality: QualityReport
    patches: PatchReport | None
    pairs: PairReport | None

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {name: value for report in self if report for name, value in report.as_dict().items()}

    def lines(self) -> list[str]:
        """Render for a console of 100 columns."""
        return [line for report in self if report for line in report.lines()]


def evaluate(options: Options) -> Evaluation:
    """Draw the samples and measure them."""
    return _measure(options, _draw(options))


def _draw(options: Options) -> Drawn:
    """Draw the samples; several processes generate a part each."""
    trained = load_trained(run=options.run, weights=None, device=torch_device(options.device))
    if current_world().is_main:
        for note in trained.notes:
            print(note)
    if options.swd:
        check_patch_sizes(options.swd, options.num, trained.config.resolution)
    if options.ms_ssim:
        check_pair_size(trained.config.resolution)
    trained = truncated(trained, options.truncation, options.truncation_by)
    images, labels = draw_samples(trained, options.num, seed=options.seed)
    images = images.clamp(-1, 1)  # as they are shown and saved: not every G is bounded
    return Drawn(trained.config, trained.source, images, labels)


def _measure(options: Options, drawn: Drawn) -> Evaluation:
    config, _, images, labels = drawn
    real = load_images_of(config, options.data)
    real_images = real.batch(torch.arange(len(real)))[0]
    check_real_images(options.swd, len(real))
    quality = measure_quality(
        images, labels, real_images, real.labels, num_classes=config.num_classes, seed=options.seed
    )
    patches, pairs = None, None
    if options.swd:
        patches = measure_patches(images, real_images, images=options.swd, seed=options.seed)
    if options.ms_ssim:
        pairs = measure_pairs(images, labels, real_images, real.labels, pairs=options.ms_ssim, seed=options.seed)
    return Evaluation(quality, patches, pairs)


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate and print; see ``python -m recipes.evaluate --help``."""

    def command() -> int:
        options = parse_options(Options, prog="python -m recipes.evaluate", description=__doc__ or "", args=argv)
        folder = RunFolder.open(options.run)
        with joined_processes(options.device) as device:
            options = replace(options, device=device)
            drawn = _draw(options)
            if not current_world().is_main:
                return 0
        report = _measure(options, drawn)
        what = {"weights": str(drawn.source.relative_to(folder.path))}
        what |= {name: getattr(options, name) for name in ("seed", "truncation", "truncation_by")}
        replace_durably(folder.evaluation_path, json.dumps(what | report.as_dict(), indent=2).encode() + b"\n")
        write_report(folder)
        print("\n".join(report.lines()))
        if sheet := folder.newest_samples():
            print(f"Sample sheet: {sheet}")
        return 0

    return run_command("evaluate", command)


if __name__ == "__main__":
    raise SystemExit(main())
