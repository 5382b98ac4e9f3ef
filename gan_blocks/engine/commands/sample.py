"""Draw from a trained generator: its moving average with standing statistics (Appendix C.1).

The first word says what to draw; without it, a grid. `gan-blocks sample WORD --help` lists its options. Every image
depends only on --seed, its number, its class and its truncation: it is the same in any batch and on any call.

Tested in ``tests/engine/commands/test_sample.py``.
"""

import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replacing, writing
from gan_blocks.engine.base.memory import check_disk_space
from gan_blocks.engine.base.terminal.command_line import parse_choice, run_command
from gan_blocks.engine.base.terminal.console import Progress
from gan_blocks.engine.commands.sampling.options import OutPath, SampleOptions, TruncatedOptions, refuse_other_images
from gan_blocks.engine.commands.sampling.paths import Interpolation, Walk
from gan_blocks.engine.pictures.sheets import ImageGrid, save_picture, save_sheet, to_uint8, with_captions
from gan_blocks.engine.recipe.next_steps import Steps, console_command, print_next_steps
from gan_blocks.engine.sampling.samples import (
    draw_latents,
    draw_samples,
    drawn_shape,
    even_labels,
    generate,
    ready_generator,
    sample_batches,
    spread_classes,
    truncated,
)
from gan_blocks.engine.sampling.trained import TrainedGenerator

__all__ = ["KINDS", "Classes", "Grid", "Truncation", "main"]

BYTES_OF_A_FILE = 4096  # at the least, on most disks
DEFAULT_NUM = 100
_LONGEST_ROW = 32


@dataclass(frozen=True)
class Grid(TruncatedOptions):
    """Independent samples, classes evenly: as a grid, as arrays or as one file each."""

    out: OutPath = Path("samples.png")
    """A .png is a grid, a .npz holds `images` (uint8, NHWC), `labels`, `class_names`; a folder gets a PNG a sample."""

    num: int | None = None
    """How many samples (default: 100, or a few less if all classes can then have the same number)."""

    columns: int | None = None
    """Samples per row of the .png (default: those of one class if the rows have a sensible length, else a square)."""

    captions: bool = True
    """Write the class next to its rows of the .png, if each row has a single class."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if self.num is not None:
            self.check_counts("num")
        if self.form not in (".png", *_WRITERS):
            raise UserError(f"--out must end in .png or .npz or be a folder, but got {self.out}.")
        if self.columns is not None:
            self.check_counts("columns")
        for name in ("columns", "scale"):
            if getattr(self, name) is not None and self.form != ".png":
                raise UserError(f"--{name} is for a sheet (.png), but --out is {self.out}.")

    def draw(self, trained: TrainedGenerator) -> str:
        """Draw the samples, and write each batch before the next is drawn."""
        self._check_sizes(trained)
        labels = even_labels(self._count(trained), self._classes(trained))
        batches = sample_batches(trained, labels, seed=self.seed, batch_size=self.batch_size)
        pictures = _Pictures(trained, batches)
        if self.form in _WRITERS:
            _WRITERS[self.form](self.out, pictures, labels)
        else:
            self._write_sheet(pictures, labels)
        return f"{len(labels)} samples"

    def next_steps(self, trained: TrainedGenerator) -> Steps:
        """Of arrays, these can be measured."""
        steps = super().next_steps(trained)
        enough = self._count(trained) >= 2 * len(self._classes(trained))
        if self.form == ".npz" and trained.record is not None and enough:
            arrays = console_command("evaluate", "--images", self.out, "--against", trained.record.source)
            return {**steps, "evaluate": arrays}
        return steps

    def _write_sheet(self, pictures: "_Pictures", labels: Tensor) -> None:
        columns = self.columns or _columns(labels)
        captions = _captions(labels, columns, pictures.class_names) if self.captions else []
        with replacing(self.out) as file:
            grid = ImageGrid(len(labels), min(columns, len(labels)), pictures.shape)
            for batch in pictures:
                grid.add(batch)
            picture = grid.picture(self.scale)
            if captions:
                picture = with_captions(picture, captions)
            picture.save(file, format="PNG")

    def _check_sizes(self, trained: TrainedGenerator) -> None:
        """Look for what cannot be written before anything is drawn."""
        num = self._count(trained)
        if self.form == "":
            refuse_other_images(self.out)
            check_disk_space("--num", num, BYTES_OF_A_FILE, self.out)
        elif self.form == ".npz":
            check_disk_space("--num", num, math.prod(drawn_shape(trained)), self.out)
        else:
            self.check_memory(trained, "--num", num)
        self.check_batch(trained, num)

    def _classes(self, trained: TrainedGenerator) -> Sequence[int]:
        return self.labels(trained) or range(trained.config.num_classes)

    def _count(self, trained: TrainedGenerator) -> int:
        if self.num is not None:
            return self.num
        classes = len(self._classes(trained))
        return DEFAULT_NUM - DEFAULT_NUM % classes if classes <= DEFAULT_NUM // 2 else DEFAULT_NUM


@dataclass(frozen=True)
class Truncation(SampleOptions):
    """What truncation does, as in the paper's Figure 2a: one row per class, one block of columns per truncation.

    The same random numbers are truncated in every block. Less truncation is more varied, more is better looking.
    """

    out: OutPath = Path("truncation.png")
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
        classes = self.labels(trained) or spread_classes(trained.config.num_classes)
        self.check_memory(trained, "--columns", self.columns, copies=len(classes) * len(self.truncations))
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
        captions = [trained.name_of(label) for label in classes]
        save_sheet(self.out, *blocks, columns=self.columns, captions=captions, headers=headers, scale=self.scale)
        return f"Truncations {', '.join(headers)} of {len(classes)} classes"


@dataclass(frozen=True)
class Classes(TruncatedOptions):
    """One sheet per class, in a folder: what a class looks like, and whether its samples repeat themselves."""

    out: OutPath = Path("classes")
    """A folder; it gets class_0.png, class_1.png, ... or, where classes have names, class_cat.png, ..."""

    num: int = 64
    """Samples a class; class by class they have the same latents."""

    columns: int | None = None
    """Samples per row (default: about a square)."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        self.check_counts("num", *(["columns"] if self.columns is not None else []))
        self.check_suffix("")

    def draw(self, trained: TrainedGenerator) -> str:
        """Draw and write class by class."""
        classes = self.labels(trained) or range(trained.config.num_classes)
        names = file_names(trained)
        sheets = {label: self.out / f"class_{names[label]}.png" for label in classes}
        refuse_other_images(self.out, {sheet.name for sheet in sheets.values()})
        self.check_memory(trained, "--num", self.num)
        model, z = ready_generator(trained), draw_latents(trained.prior, self.num, seed=self.seed)
        channels, *size = drawn_shape(trained)
        columns = min(self.columns or math.ceil(math.sqrt(self.num)), self.num)
        for label, sheet in Progress(sheets.items(), desc="classes", unit="sheet", delay=2, leave=False):
            grid = ImageGrid(self.num, columns, (*size, channels))
            for some in z.split(min(self.batch_size, self.num)):
                grid.add(to_uint8(generate(model, some, torch.full((len(some),), label), batch_size=self.batch_size)))
            save_picture(sheet, grid.picture(self.scale))
        return f"{self.num} samples of each of {len(classes)} classes"


KINDS = {"grid": Grid, "truncation": Truncation, "classes": Classes, "interpolation": Interpolation, "walk": Walk}


def file_names(trained: TrainedGenerator) -> list[str]:
    """What to call each class in the name of a file, each once: its name as far as any file system takes it."""
    names: list[str] = []
    taken: set[str] = set()
    for label in range(trained.config.num_classes):
        plain = re.sub(r"[^\w.-]+", "_", normalize("NFC", trained.name_of(label)))[:60].strip(".") or str(label)
        while plain.lower() in taken:
            plain = f"{plain}_{label}"
        taken.add(plain.lower())
        names.append(plain)
    return names


class _Pictures:
    """Samples as bytes, (height, width, channels) each, in batches that are drawn when they are asked for."""

    def __init__(self, trained: TrainedGenerator, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        channels, height, width = drawn_shape(trained)
        self.file_names = file_names(trained)
        self.class_names = [trained.name_of(label) for label in range(trained.config.num_classes)]
        self.shape = (height, width, channels)
        self._batches = batches

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (to_uint8(images) for _, images in self._batches)


def _write_arrays(out: Path, pictures: _Pictures, labels: Tensor) -> None:
    """What ``numpy.savez`` writes, which wants all images at once."""
    size = len(labels) * math.prod(pictures.shape)
    with replacing(out, needed=size) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            shape = (len(labels), *pictures.shape)
            np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for batch in pictures:
                member.write(batch.tobytes())
        with archive.open("labels.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, labels.numpy())
        with archive.open("class_names.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.array(pictures.class_names))


def _write_folder(out: Path, pictures: _Pictures, labels: Tensor) -> None:
    """Write one PNG a sample; not each is flushed to the disk, which would take longer than to draw them."""
    classes = enumerate(labels.tolist())
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for picture in (picture for batch in pictures for picture in batch):
            number, label = next(classes)
            pixels = picture[:, :, 0] if picture.shape[2] == 1 else picture
            path = out / f"{number:06d}_class_{pictures.file_names[label]}.png"
            try:
                Image.fromarray(pixels).save(path)
            except OSError:
                path.unlink(missing_ok=True)
                raise


_WRITERS = {".npz": _write_arrays, "": _write_folder}


def _columns(labels: Tensor) -> int:
    """About a square; where all classes have the same number, each row is of one class."""
    square = math.sqrt(len(labels))
    counts: list[int] = labels.unique(return_counts=True)[1].tolist()
    if counts == [counts[0]] * len(counts):
        whole = [columns for columns in range(2, _LONGEST_ROW + 1) if counts[0] % columns == 0]
        if whole:
            return min(whole, key=lambda columns: abs(columns - square))
    return math.ceil(square)


def _captions(labels: Tensor, columns: int, names: Sequence[str]) -> list[str]:
    """The class of each row, the first time that it comes; none where a row is of several, or all are of the one."""
    rows = [row.unique().tolist() for row in labels.split(columns)]
    if len(names) == 1 or any(len(row) > 1 for row in rows):
        return []
    return ["" if number and rows[number - 1] == row else names[row[0]] for number, row in enumerate(rows)]


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks sample") -> int:
    """Draw; see ``gan-blocks sample --help``."""

    def command() -> int:
        options = parse_choice(KINDS, prog=prog, description=__doc__ or "", args=argv)
        trained = options.load()
        what = options.draw(trained)
        rounded = " in bf16" if options.precision == "bf16" else ""
        print(f"{what}{rounded} from {trained.source}: {options.out}")
        print_next_steps(options.next_steps(trained))
        return 0

    return run_command("sample", command)
