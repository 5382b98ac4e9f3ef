"""Show the training images that are nearest to samples: does the generator copy?

A generator that recites its training set draws samples whose nearest neighbors are all but the same image. As in the
papers, the search is in pixels and in the features of a classifier (BigGAN, Figures 10 to 14), which is trained here
and now on the real images, and in the middle of the image alone (ProGAN, Figure 10). The sheet has a block a measure
and a row a sample: the sample on the left, its neighbors from the nearest on, each above its class, number, distance.

Tested in ``tests/engine/commands/test_neighbors.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gan_blocks.engine.base.command_line import parse_options, run_command
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands.sample_options import OutPath, TruncatedOptions
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images_of
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import ReadRequest
from gan_blocks.engine.data.sources import read_source
from gan_blocks.engine.evaluation.neighbors import MEASURES, Measure, Neighbors, classifier_features, nearest_images
from gan_blocks.engine.evaluation.neighbors_sheet import neighbors_sheet
from gan_blocks.engine.pictures.sheets import save_picture
from gan_blocks.engine.sampling.samples import draw_samples

__all__ = ["Options", "main"]


@dataclass(frozen=True)
class Options(TruncatedOptions):
    """Whose neighbors to look for, and by which measures."""

    out: OutPath = Path("neighbors.png")
    """A .png."""

    num: int = 10
    """How many samples, classes evenly."""

    samples: Path | None = None
    """Take the first --num images of this .npz (`images` uint8 NHWC, `labels`) instead of drawing samples."""

    neighbors: int = 6
    """Neighbors of each sample."""

    by: tuple[Literal["pixels", "features", "crop"], ...] = ("pixels", "features", "crop")
    """pixels: Euclidean distance in pixels. features: in what a classifier sees. crop: sum of absolute differences in
    the middle of the image, half as high and half as wide."""

    among: Literal["all", "class"] = "all"
    """Search all training images, or those of the sample's class only (as BigGAN's figures do)."""

    data: str | None = None
    """Where the training images are, when they have moved since the training."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self.check_counts("num", "neighbors")
        self.check_suffix(".png")
        if not self.by:
            raise UserError("--by must name at least one of pixels, features and crop.")
        if self.samples is not None:
            for name, given in (("--classes", self.classes), ("--truncation", self.truncation)):
                if given:
                    raise UserError(f"{name} is for samples that are drawn here, but --samples gives them.")


def search(options: Options) -> list[tuple[str, Neighbors]]:
    """Find the neighbors and write the sheet; the titles of the measures with what each found."""
    trained = options.load()
    config = trained.config
    real = load_images_of(config, options.data)
    if options.samples is None:
        queries, labels = draw_samples(
            trained, options.num, seed=options.seed, classes=options.classes, batch_size=options.batch_size
        )
    else:
        source = DataSource(str(options.samples), "npz", options.samples, option="--samples")
        layout = PixelLayout(config.resolution, config.image_channels)
        given = read_source(source, ReadRequest(layout, config.num_classes))
        queries, labels = given.batch(torch.arange(min(options.num, len(given))))
    found = []
    for name in options.by:
        measure = _measure(name, real, num_classes=config.num_classes, seed=options.seed)
        within = labels if options.among == "class" else None
        found.append(
            (measure.title, nearest_images(queries, real, measure, count=options.neighbors, query_labels=within))
        )
    save_picture(options.out, neighbors_sheet(queries, labels, real, found))
    return found


def _measure(name: str, real: ImageSet, *, num_classes: int, seed: int) -> Measure:
    if name in MEASURES:
        return MEASURES[name]
    return Measure("L2 in classifier features", 2.0, classifier_features(real, num_classes=num_classes, seed=seed))


def _line(title: str, found: Neighbors) -> str:
    nearest: Tensor = found.distances[:, 0]
    return f"{title}: the nearest training image is {nearest.min():.3g} to {nearest.max():.3g} away"


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks neighbors") -> int:
    """Search and draw; see ``gan-blocks neighbors --help``."""

    def command() -> int:
        examples = [(f"{prog} --run RUN", "ten samples and their nearest training images")]
        options = parse_options(Options, prog=prog, description=__doc__ or "", args=argv, examples=examples)
        found = search(options)
        print("\n".join(_line(title, neighbors) for title, neighbors in found))
        print(f"Sheet: {options.out}")
        return 0

    return run_command("neighbors", command)
