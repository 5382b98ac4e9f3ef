"""The options that everything drawn from a trained generator has in common.

Tested in ``tests/engine/commands/test_sample.py``.
"""

import math
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from gan_blocks.engine.base.checks import check_threads
from gan_blocks.engine.base.devices import torch_device, use_threads
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import writing
from gan_blocks.engine.base.memory import check_memory, physical_memory
from gan_blocks.engine.recipe.next_steps import Steps, console_command, of_run
from gan_blocks.engine.sampling.inference import SamplingPrecision
from gan_blocks.engine.sampling.samples import TruncationKind, check_truncation, drawn_shape, truncated
from gan_blocks.engine.sampling.trained import TrainedGenerator, load_trained

__all__ = ["OutPath", "SampleOptions", "TruncatedOptions", "cycle", "refuse_other_images"]


LARGEST_SCALE = 64


class _FolderPath(type(Path())):  # type: ignore[misc]
    """What was written with a slash at its end, which a path forgets."""


def _out_path(words: Sequence[str]) -> Path:
    kind = _FolderPath if words[0].endswith(("/", os.sep)) else Path
    return kind(words[0])


OutPath = Annotated[
    Path,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=_out_path,
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    ),
]
"""Where a command writes; a slash at the end names a folder."""


@dataclass(frozen=True)
class SampleOptions:
    """Which generator, which classes, and where to put what it draws."""

    run: Path | None = None
    """Folder of a run, of which the newest checkpoint is used."""

    weights: Path | None = None
    """A weights file (ema.safetensors of a checkpoint), instead of --run."""

    recipe: str | None = None
    """The recipe that made the run, if it is not registered: its file (my_gan.py) or module."""

    out: OutPath = Path()
    """Where to put it."""

    classes: tuple[str, ...] = ()
    """Classes to draw, by name or number, in this order (default: all, or ten of them if that is too many)."""

    seed: int = 0
    """Seed of the latents."""

    scale: int | None = None
    """Enlarge each pixel this many times in sheets and films (default: so that small images are easy to see)."""

    batch_size: int = 64
    """Images generated at once; the images do not depend on it."""

    precision: SamplingPrecision = "fp32"
    """fp32 or bf16 (autocast; faster if the processor supports it; images differ by rounding)."""

    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, ... or auto."""

    threads: int | None = None
    """CPU threads (default: torch's choice); a different number changes the last bits."""

    def __post_init__(self) -> None:
        """Check the values."""
        self.check_counts("batch_size")
        check_threads(self.threads)
        if self.scale is not None and not 1 <= self.scale <= LARGEST_SCALE:
            raise UserError(f"--scale must be from 1 to {LARGEST_SCALE}, but got {self.scale}.")

    @property
    def form(self) -> str:
        """The suffix of the output in small letters; "" stands for a folder."""
        is_folder = isinstance(self.out, _FolderPath) or os.path.isdir(self.out)  # noqa: PTH112 - no name is too long
        return "" if is_folder else self.out.suffix.lower()

    def check_counts(self, *names: str) -> None:
        """Refuse a field that is less than 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, but got {getattr(self, name)}.")

    def check_suffix(self, *allowed: str) -> None:
        """Refuse a name of the output that ends in none of these; "" stands for a folder."""
        if self.form not in allowed:
            *others, last = [suffix for suffix in allowed if suffix] or [""]
            rule = f"end in {', '.join(others)} or {last}" if others else f"end in {last}" if last else "be a folder"
            got = f"the folder {self.out}" if self.form == "" and self.out.suffix else self.out
            raise UserError(f"--out must {rule}, but got {got}.")

    def load(self) -> TrainedGenerator:
        """The generator, after a check that it has the classes.

        Raises:
            UserError: If there is no such generator, or it has fewer classes.
        """
        notes = use_threads(self.threads)
        trained = load_trained(
            run=self.run,
            weights=self.weights,
            device=torch_device(self.device),
            recipe=self.recipe,
            precision=self.precision,
        )
        for note in (*notes, *trained.notes):
            print(note)
        for word, label in zip(self.classes, self.labels(trained), strict=True):
            if not str(word).isdecimal():
                continue
            if int(word) != label:
                print(f"--classes {word} is the class of that name, whose number is {label}.")
            elif trained.name_of(label) != str(int(word)):
                print(f"--classes {word} is the class of that number, {trained.name_of(label)}.")
        return trained

    def labels(self, trained: TrainedGenerator) -> list[int]:
        """The numbers of --classes; none where all are meant.

        Raises:
            UserError: If the generator has no such class.
        """
        return [trained.label_of(word) for word in self.classes]

    def next_steps(self, trained: TrainedGenerator) -> Steps:
        """What else there is to do with this generator."""
        steps: dict[str, Sequence[object]] = {}
        if self.run is not None and trained.record is not None:  # else nothing is known of its data
            run = of_run(self.run, self.recipe)
            steps["evaluate"] = console_command("evaluate", *run)
            steps["nearest images"] = console_command("neighbors", *run)
        return {**steps, "other pictures": console_command("sample", "--help")}

    def check_memory(self, trained: TrainedGenerator, option: str, count: int, *, copies: int = 1) -> None:
        """Refuse an option that asks for more images at once, ``copies`` for each of its number, than memory holds."""
        bytes_of_a_value = max(4, (self.scale or 1) ** 2)  # as it is drawn, and as it is shown
        check_memory(option, count, copies * bytes_of_a_value * math.prod(drawn_shape(trained)))

    def check_batch(self, trained: TrainedGenerator, count: int) -> None:
        """Refuse batches, of ``count`` images together, that memory cannot hold."""
        if count * 4 * math.prod(drawn_shape(trained)) > physical_memory():
            self.check_memory(trained, "--batch-size", self.batch_size)


@dataclass(frozen=True)
class TruncatedOptions(SampleOptions):
    """The same, with one truncation for all that is drawn."""

    truncation: float | None = None
    """Truncate z: smaller values give better and less varied images (default: no truncation)."""

    truncation_by: TruncationKind | None = None
    """What the number means. threshold (default): components beyond it are drawn again, as in the paper. scaled: a
    normal distribution cut off at 2 is multiplied by it, as in the released models."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        check_truncation(self.truncation, self.truncation_by)

    def load(self) -> TrainedGenerator:
        """The generator with its prior truncated."""
        return truncated(super().load(), self.truncation, self.truncation_by)


def refuse_other_images(folder: Path, replaced: Container[str] = ()) -> None:
    """Check that a folder to draw into holds no pictures but those to be replaced: two calls' must not be mixed.

    Raises:
        UserError: If it does, or cannot be read.
    """
    with writing(folder):
        names = [path.name for path in folder.iterdir() if path.suffix.lower() == ".png"] if folder.is_dir() else []
    if others := [name for name in names if name not in replaced]:
        what = "samples" if all("class_" in name for name in others) else "images"
        raise UserError(f"{folder} holds {len(others):,} {what} already: choose another folder or remove them.")


def cycle(classes: Sequence[int], count: int) -> list[int]:
    """The first ``count`` of the classes repeated over and over."""
    return [classes[number % len(classes)] for number in range(count)]
