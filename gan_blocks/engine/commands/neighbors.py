"""Show the training images that are nearest to samples: does the generator copy?

If a generator copies its training set, the nearest neighbors of its samples are almost the same images. As in the
papers, the search compares pixels, the features of a classifier (BigGAN, Figures 10 to 14), which is trained on the
spot on the real images, and only the center of the image (ProGAN, Figure 10). The sheet has one block per measure and
one row per sample: the sample on the left, then its neighbors, nearest first, with class, number and distance.

Tested in ``tests/engine/commands/test_neighbors.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from gan_blocks.engine.base.devices import torch_device
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.memory import check_memory
from gan_blocks.engine.base.terminal.command_line import parse_options, run_command
from gan_blocks.engine.commands.sampling.options import OutPath, TruncatedOptions
from gan_blocks.engine.data.arrays import image_set_from_arrays
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.kinds.npz import read_npz
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.evaluation.features.choice import CLASSIFIER, parse_features
from gan_blocks.engine.evaluation.features.network import FeatureNetwork
from gan_blocks.engine.evaluation.neighbors import MEASURES, Measure, Neighbors, classifier_features, nearest_images
from gan_blocks.engine.evaluation.neighbors_sheet import cell_bytes, neighbors_sheet
from gan_blocks.engine.evaluation.quality import check_same_size
from gan_blocks.engine.pictures.sheets import save_picture
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.next_steps import Steps, console_command, of_run, print_next_steps
from gan_blocks.engine.runs.folder import CONVERTED, RunFolder
from gan_blocks.engine.sampling.samples import draw_samples, drawn_shape

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
    """pixels: Euclidean distance of pixels. features: the same of a classifier's features. crop: sum of absolute
    differences in the center of the image, at half its height and width."""

    features: str | None = None
    """Use the features of another network instead of the classifier's, given as for gan-blocks evaluate --features."""

    among: Literal["all", "class"] = "all"
    """Search all training images, or only those of the sample's class, as in BigGAN's figures."""

    data: str | None = None
    """Where the training images are, if they have moved since the training."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self.check_counts("num", "neighbors")
        self.check_suffix(".png")
        if self.features is not None:
            parse_features(self.features)
        if not self.by:
            raise UserError("--by must name at least one of pixels, features and crop.")
        if self.samples is not None:
            drawn = (
                ("--classes", self.classes),
                ("--truncation", self.truncation),
                ("--precision", self.precision != "fp32"),
            )
            for name, given in drawn:
                if given:
                    raise UserError(f"{name} is for samples that are drawn here, but --samples gives them.")


class Search(NamedTuple):
    """What was found."""

    queries: Tensor
    labels: Tensor
    real: ImageSet
    found: list[tuple[str, Neighbors]]
    """Title of each measure, and its neighbors."""

    def lines(self) -> list[str]:
        """What to say of each measure."""
        return [_line(title, neighbors) for title, neighbors in self.found]

    def sheet(self, scale: int | None) -> Image.Image:
        """Draw them, as :func:`neighbors_sheet` says."""
        return neighbors_sheet(self.queries, self.labels, self.real, self.found, scale)


def search(options: Options) -> Search:
    """Find the neighbors."""
    trained = options.load()
    config = trained.config
    real, notes = trained.load_images(options.data)
    for note in notes:
        print(note)
    network = _network(options, real)
    if options.samples is None:
        check_same_size(drawn_shape(trained), real.layout.shape)
        _check_sheet(options, real, options.num)
        options.check_batch(trained, options.num)
        queries, labels = draw_samples(
            trained, options.num, seed=options.seed, classes=options.labels(trained), batch_size=options.batch_size
        )
    else:
        queries, labels = _given(options, config)
        _check_sheet(options, real, len(queries))
    found = []
    for name in options.by:
        measure = _measure(name, real, network, num_classes=config.num_classes, seed=options.seed)
        within = labels if options.among == "class" else None
        found.append(
            (measure.title, nearest_images(queries, real, measure, count=options.neighbors, query_labels=within))
        )
    return Search(queries, labels, real, found)


def _check_sheet(options: Options, real: ImageSet, rows: int) -> None:
    """Look for a sheet that memory cannot hold before anything is searched."""
    row = (1 + len(options.by) * min(options.neighbors, len(real))) * cell_bytes(real, options.scale)
    check_memory("--num", rows, row)


def _given(options: Options, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """The images of --samples, which have to be of the run's size: resampled ones are near to nothing."""
    source = DataSource(str(options.samples), "npz", options.samples, option="--samples")
    arrays = read_npz(source, num_classes=config.num_classes)
    layout = PixelLayout(config.resolution, config.image_channels)
    if (shape := arrays.images.shape[1:]) != (layout.resolution, layout.resolution, layout.channels):
        wanted = f"{layout.resolution} x {layout.resolution} with {_channels(layout.channels)}"
        got = f"{shape[0]} x {shape[1]} with {_channels(shape[2])}"
        raise source.error(f"the images must be {wanted}, as those of the run are, but got {got}.")
    given = image_set_from_arrays(arrays, layout)
    return given.batch(torch.arange(min(options.num, len(given))))


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"


def _network(options: Options, real: ImageSet) -> FeatureNetwork | None:
    """The network that --features names; None: the classifier of the real images, which is trained when it is asked."""
    if options.features is None or (choice := parse_features(options.features)).kind == CLASSIFIER:
        return None
    return choice.load(torch_device(options.device), real.resolution)


def _measure(name: str, real: ImageSet, network: FeatureNetwork | None, *, num_classes: int, seed: int) -> Measure:
    if name in MEASURES:
        return MEASURES[name]
    if network is None:
        look = classifier_features(real, num_classes=num_classes, seed=seed)
        return Measure("L2 in classifier features", 2.0, look)
    return Measure(f"L2 in {network.name} features", 2.0, lambda images: network.features(network.rows(images)))


def _line(title: str, found: Neighbors) -> str:
    nearest: Tensor = found.distances[:, 0]
    return f"{title}: the nearest training image is {nearest.min():.3g} to {nearest.max():.3g} away"


def _next(options: Options) -> Steps:
    """Another look at the same question, where there is a D to ask."""
    if options.run is None or RunFolder.open(options.run).preset == CONVERTED:
        return {}
    run = [*of_run(options.run, options.recipe), *([] if options.data is None else ["--data", options.data])]
    return {"does D remember": console_command("evaluate", *run, "--memorization", 1000)}


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks neighbors") -> int:
    """Search and draw; see ``gan-blocks neighbors --help``."""

    def command() -> int:
        examples = [(f"{prog} --run RUN", "ten samples and their nearest training images")]
        options = parse_options(Options, prog=prog, description=__doc__ or "", args=argv, examples=examples)
        result = search(options)
        try:  # neither a sheet that cannot be saved nor a console that is gone shall lose the other
            print("\n".join(result.lines()), flush=True)
        finally:
            save_picture(options.out, result.sheet(options.scale))
        print(f"Sheet: {options.out}")
        print_next_steps(_next(options))
        return 0

    return run_command("neighbors", command)
