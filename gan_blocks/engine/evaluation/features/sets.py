"""Features of all that is compared: samples, real images, and other real images, which say how good a score can be.

Tested in ``tests/engine/evaluation/features/test_kept_features.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.features.cache import RealFigures
from gan_blocks.engine.evaluation.features.network import FeatureNetwork
from gan_blocks.engine.evaluation.features.rows import FeatureSet
from gan_blocks.engine.evaluation.scores.score import Counts

__all__ = ["LEAST", "FeatureSets", "check_feature_counts"]

LEAST = 6  # a neighborhood of 5 needs a sample more


@dataclass(frozen=True, eq=False)
class FeatureSets:
    """What a network makes of samples and real images."""

    network: FeatureNetwork
    generated: FeatureSet
    real: FeatureSet
    held_out: FeatureSet | None
    """Real images that were kept from the training, if some were."""
    seed: int
    figures: RealFigures
    """Keeps what is found of the real images."""

    @cached_property
    def floor(self) -> tuple[FeatureSet, FeatureSet]:
        """Real images, and others to compare with them, as many as there are samples or as there can be.

        Where none were held out, some of the real ones are set aside, chosen by the seed.
        """
        if self.held_out is not None:
            stream = random_stream(self.seed, "features", "held out")
            return self.real, self.held_out.chosen(len(self.generated), stream)
        order = torch.randperm(len(self.real), generator=random_stream(self.seed, "features", "set aside"))
        count = min(len(self.generated), len(self.real) // 2)
        return self.real.among(order[count:]), self.real.among(order[:count])

    @property
    def counts(self) -> Counts:
        """How many images scores of all of them are made of."""
        real, other = self.floor
        return Counts(len(self.generated), len(self.real), len(other), len(real))

    @property
    def classes(self) -> list[int]:
        """The classes of the samples."""
        classes: list[int] = self.generated.labels.unique().tolist()
        return classes

    def of_floor(self, name: str, measure: Callable[[FeatureSet, FeatureSet], Any]) -> Any:
        """JSON values that are measured between real images alone, and kept."""
        real, other = self.floor
        return self._kept("floor", (name, len(real), len(other)), lambda: measure(real, other))

    def of_real(self, name: str, measure: Callable[[], Any]) -> Any:
        """JSON values that are measured of the real images alone, and kept."""
        return self._kept("real", (name, len(self.real)), measure)

    def _kept(self, kind: str, settings: tuple[object, ...], measure: Callable[[], Any]) -> Any:
        if not self.network.digest:
            return measure()
        name, *counts = settings
        network = self.network.name, self.network.digest  # the name has the side that it looks at
        return self.figures(kind, (name, *network, self.seed, *counts), measure)


def check_feature_counts(samples: int, real: int, *, held_out: int | None, option: str) -> None:
    """Check that there are enough images to compare.

    Args:
        samples: How many samples.
        real: How many real images.
        held_out: How many of them are held out; None: no others are, so that real ones are set aside.
        option: What gives the samples, such as ``--num``.

    Raises:
        UserError: If there are too few.
    """
    why = "since neighborhoods of 5 are measured"
    if samples < LEAST:
        raise UserError(f"{option} must be at least {LEAST} for --features, {why}, but got {samples}.")
    least = LEAST if held_out is not None else 2 * LEAST
    halves = "" if held_out is not None else " and half of them are set aside to compare with"
    if real < least:
        raise UserError(f"--features needs at least {least} real images, {why}{halves}, but there are {real}.")
    if held_out is not None and held_out < LEAST:
        raise UserError(f"--features needs at least {LEAST} held-out images, {why}, but there are {held_out}.")
