"""The options that everything drawn from a trained generator has in common.

Tested in ``tests/engine/commands/test_sample.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gan_blocks.engine.base.devices import torch_device
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.sampling.samples import TruncationKind, check_truncation, truncated
from gan_blocks.engine.sampling.trained import TrainedGenerator, load_trained

__all__ = ["SampleOptions", "TruncatedOptions", "cycle"]


@dataclass(frozen=True)
class SampleOptions:
    """Which generator, which classes, and where to put what it draws."""

    run: Path | None = None
    """Folder of a run; its newest checkpoint is used."""

    weights: Path | None = None
    """One weights file (ema.safetensors of a checkpoint), instead of --run."""

    recipe: str | None = None
    """The recipe that made the run, where it is none that is registered: its file (my_gan.py) or module."""

    out: Path = Path()
    """Where to put it."""

    classes: tuple[int, ...] = ()
    """Classes to draw, in this order (default: all, or ten of them where that is too many)."""

    seed: int = 0
    """Seed of the latents."""

    batch_size: int = 64
    """Images generated at once; the images do not depend on it."""

    device: str = "auto"
    """Where to compute: cpu, cuda, cuda:1, ... or auto."""

    def __post_init__(self) -> None:
        """Check the values."""
        self.check_counts("batch_size")

    def check_counts(self, *names: str) -> None:
        """Refuse a field that is less than 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, but got {getattr(self, name)}.")

    def check_suffix(self, *allowed: str) -> None:
        """Refuse a name of the output that ends in none of these; "" stands for a folder."""
        if self.out.suffix not in allowed:
            *others, last = [suffix for suffix in allowed if suffix] or [""]
            rule = f"end in {', '.join(others)} or {last}" if others else f"end in {last}" if last else "be a folder"
            raise UserError(f"--out must {rule}, but got {self.out}.")

    def load(self) -> TrainedGenerator:
        """The generator, after a check that it has the classes.

        Raises:
            UserError: If there is no such generator, or it has fewer classes.
        """
        trained = load_trained(run=self.run, weights=self.weights, device=torch_device(self.device), recipe=self.recipe)
        for note in trained.notes:
            print(note)
        num_classes = trained.config.num_classes
        for label in self.classes:
            if not 0 <= label < num_classes:
                raise UserError(f"--classes must lie in 0 to {num_classes - 1}, but got {label}.")
        return trained


@dataclass(frozen=True)
class TruncatedOptions(SampleOptions):
    """The same, with one truncation for all that is drawn."""

    truncation: float | None = None
    """Truncate z: less is better looking and less varied (default: no truncation)."""

    truncation_by: TruncationKind | None = None
    """What the number means. threshold: components beyond it are drawn again (the paper's, default). scaled: it times a
    normal distribution cut at 2 (the released models')."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        check_truncation(self.truncation, self.truncation_by)

    def load(self) -> TrainedGenerator:
        """The generator with its prior truncated."""
        return truncated(super().load(), self.truncation, self.truncation_by)


def cycle(classes: Sequence[int], count: int) -> list[int]:
    """The first ``count`` of the classes repeated over and over."""
    return [classes[number % len(classes)] for number in range(count)]
