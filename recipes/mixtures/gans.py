"""GANs in the plane, several at once: what is saved of each, what it draws, and how good that is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, optim

from gan_blocks import mode_coverage
from gan_blocks.engine.base import random_stream
from gan_blocks.engine.pictures import new_figure, save_figure
from gan_blocks.engine.runs import Checkpoint, flatten_optimizer, load_weights, restore_optimizer
from recipes.mixtures.networks import Perceptron

__all__ = ["Gan", "Scores", "arms_of", "by_arm", "draw_samples", "evaluate"]

SHOWN = 2000  # samples in a picture

Value = TypeVar("Value")
Scores = dict[str, list[list[float]]]
"""Measures by arm and seed."""


@dataclass(frozen=True)
class Gan:
    """A generator and a discriminator, which learn by themselves."""

    arm: str
    seed: int
    generator: Perceptron
    discriminator: Perceptron
    optimizer_g: optim.Optimizer
    optimizer_d: optim.Optimizer

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything to save, by file and name."""
        parts = {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer_g": flatten_optimizer(self.optimizer_g, self.generator),
            "optimizer_d": flatten_optimizer(self.optimizer_d, self.discriminator),
        }
        return {part: {self._prefix + name: tensor for name, tensor in own.items()} for part, own in parts.items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Bring back what :meth:`tensors` gave, bit for bit."""
        own = {
            part: {name.removeprefix(self._prefix): t for name, t in tensors.items() if name.startswith(self._prefix)}
            for part, tensors in checkpoint.tensors.items()
        }
        who = f"{self.arm}, seed {self.seed}"
        load_weights(self.generator, own["generator"], f"the generator of {who}")
        load_weights(self.discriminator, own["discriminator"], f"the discriminator of {who}")
        restore_optimizer(self.optimizer_g, self.generator, own["optimizer_g"], f"the generator's optimizer of {who}")
        restore_optimizer(
            self.optimizer_d, self.discriminator, own["optimizer_d"], f"the discriminator's optimizer of {who}"
        )

    def samples(self, count: int) -> Tensor:
        """The same latents in both arms of a seed, ``(count, 2)``."""
        stream = random_stream(self.seed, "evaluation")
        with torch.no_grad():
            points: Tensor = self.generator(torch.randn(count, self.generator.widths[0], generator=stream))
        return points

    @property
    def _prefix(self) -> str:
        return f"{self.arm}.seed_{self.seed}."


def arms_of(gans: Iterable[Gan]) -> list[str]:
    """The names of the arms in their order."""
    return list(dict.fromkeys(gan.arm for gan in gans))


def by_arm(gans: Sequence[Gan], values: Iterable[Value]) -> list[list[Value]]:
    """Split what there is for each GAN by arm, then seed."""
    pairs = list(zip(gans, values, strict=True))
    return [[value for gan, value in pairs if gan.arm == arm] for arm in arms_of(gans)]


def evaluate(gans: Sequence[Gan], centers: Tensor, *, std: float, samples: int) -> Scores:
    """High-quality share and share of recovered modes of each arm and seed, in per cent (section 4).

    Args:
        gans: The seeds of one arm after those of the other.
        centers: The modes, ``(modes, 2)``.
        std: Standard deviation of a mode; a good sample is within four of them of a mode.
        samples: How many of each generator.
    """
    found = [mode_coverage(gan.samples(samples), centers, radius=4 * std) for gan in gans]
    return {
        "high_quality": by_arm(gans, [100 * coverage.high_quality for coverage in found]),
        "recovered": by_arm(gans, [100 * coverage.recovered for coverage in found]),
    }


def draw_samples(path: Path, gans: Sequence[Gan], centers: Tensor, scores: Scores, *, margin: float) -> None:
    """A picture of each arm (rows) and seed (columns): samples over the modes.

    Args:
        path: The PNG.
        gans: As in :func:`evaluate`.
        centers: The modes, ``(modes, 2)``.
        scores: What :func:`evaluate` gave.
        margin: What is shown around the outermost modes.

    Raises:
        UserError: If it cannot be written.
    """
    rows = len(arms_of(gans))
    columns = len(gans) // rows
    figure = new_figure(4 * columns, 4.3 * rows, dpi=80)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    reach = centers.max().item() + margin
    of_each = (chain(*scores["high_quality"]), chain(*scores["recovered"]))
    for axes, gan, quality, modes in zip(grid, gans, *of_each, strict=True):
        x, y = centers.T
        axes.scatter(x, y, s=60, facecolors="none", edgecolors="tab:orange", linewidths=0.8)
        x, y = gan.samples(SHOWN).T
        axes.scatter(x, y, s=1, color="tab:blue", linewidths=0)
        title = f"{gan.arm}, seed {gan.seed}: {quality:.1f} % near, {modes:.0f} % of modes"
        axes.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.title.set_fontsize(9)
    save_figure(path, figure)
