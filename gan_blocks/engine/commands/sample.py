"""Draw from a trained generator: its moving average with standing statistics (Appendix C.1).

The first word says what is drawn; without one it is a grid. `gan-blocks sample WORD --help` lists its options.
Every image is a function of --seed, its number, its class and its truncation: the same in any batch, on any call.

Tested in ``tests/engine/commands/test_sample.py``.
"""

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from gan_blocks.engine.base.command_line import parse_choice, run_command
from gan_blocks.engine.base.console import Progress
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably, writing
from gan_blocks.engine.commands.sample_options import SampleOptions, TruncatedOptions
from gan_blocks.engine.commands.sample_paths import Interpolation, Walk
from gan_blocks.engine.pictures.sheets import image_grid, save_picture, save_sheet, to_uint8
from gan_blocks.engine.sampling.samples import (
    draw_latents,
    draw_samples,
    generate,
    ready_generator,
    spread_classes,
    truncated,
)
from gan_blocks.engine.sampling.trained import TrainedGenerator

__all__ = ["KINDS", "Classes", "Grid", "Truncation", "main"]


@dataclass(frozen=True)
class Grid(TruncatedOptions):
    """Independent samples, classes evenly: as a grid, as arrays or as one file each."""

    out: Path = Path("samples.png")
    """A .png is a grid, a .npz holds `images` (uint8, NHWC) and `labels`, and a folder gets one PNG a sample."""

    num: int = 100
    """How many samples."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self.check_counts("num")
        if self.out.suffix not in (".png", ".npz", ""):
            raise UserError(f"--out must end in .png or .npz or be a folder, but got {self.out}.")

    def draw(self, trained: TrainedGenerator) -> str:
        """Draw the samples and write them."""
        images, labels = draw_samples(
            trained, self.num, seed=self.seed, classes=self.classes, batch_size=self.batch_size
        )
        _write(self.out, images, labels)
        return f"{self.num} samples"


@dataclass(frozen=True)
class Truncation(SampleOptions):
    """What truncation does, as in the paper's Figure 2a: a row a class, a block of columns a truncation.

    The same random numbers are truncated in every block. Less truncation is more varied, more is better looking.
    """

    out: Path = Path("truncation.png")
    """A .png."""

    truncations: tuple[float, ...] = (2.0, 1.0, 0.5, 0.04)
    """The truncations, one block each; Figure 2a's by default."""

    truncation_by: Literal["threshold", "scaled"] = "threshold"
    """What the numbers mean. threshold: components beyond it are drawn again (the paper's). scaled: it times a normal
    distribution cut at 2 (the released models')."""

    columns: int = 4
    """Samples a class and truncation."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self.check_counts("columns")
        self.check_suffix(".png")
        if not self.truncations or not all(number >= 0 for number in self.truncations):
            got = " ".join(f"{number:g}" for number in self.truncations) or "none"
            raise UserError(f"--truncations must be one or more numbers of at least 0, but got {got}.")

    def draw(self, trained: TrainedGenerator) -> str:
        """Draw the blocks and write the sheet."""
        classes = self.classes or spread_classes(trained.config.num_classes)
        blocks = []
        for number in Progress(self.truncations, desc="truncations", unit="block", delay=2, leave=False):
            of_block = truncated(trained, number, self.truncation_by)
            images, _ = draw_samples(
                of_block,
                len(classes) * self.columns,
                seed=self.seed,
                classes=tuple(classes),
                batch_size=self.batch_size,
            )
            blocks.append(images)
        headers = [f"{number:g}" for number in self.truncations]
        save_sheet(self.out, *blocks, columns=self.columns, captions=[str(label) for label in classes], headers=headers)
        return f"Truncations {', '.join(headers)} of {len(classes)} classes"


@dataclass(frozen=True)
class Classes(TruncatedOptions):
    """One sheet a class, in a folder: what a class looks like, and whether its samples repeat themselves."""

    out: Path = Path("classes")
    """A folder; it gets class_0.png, class_1.png, ..."""

    num: int = 64
    """Samples a class; class by class they have the same latents."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self.check_counts("num")
        self.check_suffix("")

    def draw(self, trained: TrainedGenerator) -> str:
        """Draw and write class by class."""
        classes = self.classes or range(trained.config.num_classes)
        model, z = ready_generator(trained), draw_latents(trained.prior, self.num, seed=self.seed)
        for label in Progress(classes, desc="classes", unit="sheet", delay=2, leave=False):
            images = generate(model, z, torch.full((self.num,), label), batch_size=self.batch_size)
            save_sheet(self.out / f"class_{label}.png", images, columns=math.ceil(math.sqrt(self.num)))
        return f"{self.num} samples of each of {len(classes)} classes"


KINDS = {"grid": Grid, "truncation": Truncation, "classes": Classes, "interpolation": Interpolation, "walk": Walk}


def _write(out: Path, images: Tensor, labels: Tensor) -> None:
    """Write images in [-1, 1] in the form that the name asks for."""
    pictures = to_uint8(images)
    if out.suffix == ".png":
        save_picture(out, image_grid(pictures, columns=_columns(labels)))
    elif out.suffix == ".npz":
        arrays = io.BytesIO()
        np.savez(arrays, images=pictures, labels=labels.numpy())
        replace_durably(out, arrays.getvalue())
    else:
        with writing(out):
            _write_folder(out, pictures, labels.tolist())


def _write_folder(out: Path, pictures: npt.NDArray[np.uint8], labels: Sequence[int]) -> None:
    """Write one PNG a sample; not each is flushed to the disk, which would take longer than to draw them."""
    out.mkdir(parents=True, exist_ok=True)
    named = zip(pictures, labels, strict=True)
    for number, (picture, label) in enumerate(Progress(named, total=len(pictures), unit="image", delay=2)):
        pixels = picture[:, :, 0] if picture.shape[2] == 1 else picture
        path = out / f"{number:06d}_class_{label}.png"
        try:
            Image.fromarray(pixels).save(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _columns(labels: Tensor) -> int:
    """One row a class where all classes are equally many and a row is of sensible length, else about a square."""
    counts: list[int] = list(Counter(labels.tolist()).values())
    if 2 <= counts[0] <= 32 and counts == [counts[0]] * len(counts):
        return counts[0]
    return math.ceil(math.sqrt(len(labels)))


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks sample") -> int:
    """Draw; see ``gan-blocks sample --help``."""

    def command() -> int:
        options = parse_choice(KINDS, prog=prog, description=__doc__ or "", args=argv)
        trained = options.load()
        what = options.draw(trained)
        print(f"{what} from {trained.source}: {options.out}")
        return 0

    return run_command("sample", command)
