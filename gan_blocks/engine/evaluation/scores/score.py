"""One score with all that it takes to read it: its interval, that of other real images, and the counts.

Tested in ``tests/engine/evaluation/scores/test_scores.py``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gan_blocks.engine.base.json_values import merged

__all__ = ["CONFIDENT", "Counts", "Score", "ScoreReport", "mean_interval", "share_interval"]

NAME_WIDTH = 34
CONFIDENT = 1.96  # standard errors to either side: 95 % of a normal distribution


@dataclass(frozen=True)
class Counts:
    """How many images a score is made of."""

    samples: int
    real: int
    floor_samples: int
    """Other real images, in the place of samples."""
    floor_real: int
    """Real images that these are compared with."""

    def as_dict(self) -> dict[str, int]:
        """Plain values for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Score:
    """A number beside what real images have.

    Attributes:
        key: Its name in the JSON file.
        name: What to call it, with network and side, such as ``FD-efflite0-128``.
        value: That of the samples.
        interval: 95 % of values that other samples would give, as far as that is known; None: it is not.
        floor: That of other real images: the best that can be expected.
        counts: How many images it is made of.
        scale: Factor with which it is shown.
        more: Further values for the JSON file.

    Raises:
        ValueError: If ``more`` has a name that another value has in the JSON file.
    """

    key: str
    name: str
    value: float
    interval: tuple[float, float] | None
    floor: float | None
    counts: Counts
    scale: float = 1.0
    more: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check that no value takes the place of another."""
        self.as_dict()

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        interval = None if self.interval is None else list(self.interval)
        found = {"name": self.name, "value": self.value, "interval": interval, "floor": self.floor}
        parts = (self.key, found), ("its counts", self.counts.as_dict()), ("its further values", self.more or {})
        return {self.key: merged(parts)}

    def line(self) -> str:
        """Render for a console of 100 columns."""
        name = self.name if self.scale == 1 else f"{self.name} x {self.scale:,.0f}"
        name = name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…"
        shown = f"  {name:<{NAME_WIDTH}} {self._shown(self.value):>9}"
        low_high = (
            "" if self.interval is None else f"{self._shown(self.interval[0])} to {self._shown(self.interval[1])}"
        )
        floor = "" if self.floor is None else f"real {self._shown(self.floor):>9}"
        return f"{shown}  {low_high:<22}  {floor}".rstrip()

    def _shown(self, value: float) -> str:
        return f"{value * self.scale:.4g}"


@dataclass(frozen=True)
class ScoreReport:
    """Some scores, and lines to say more of them.

    Raises:
        ValueError: If two scores have one key.
    """

    scores: tuple[Score, ...]
    details: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that no score takes the place of another."""
        self.as_dict()

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return merged((score.name, score.as_dict()) for score in self.scores)

    def lines(self) -> list[str]:
        """Render for a console of 100 columns."""
        return [*(score.line() for score in self.scores), *self.details]


def mean_interval(values: Tensor) -> tuple[float, float] | None:
    """Of the mean of independent values, ``(count,)``; None where one value says nothing of the others."""
    if len(values) < 2:
        return None
    mean, error = values.double().mean().item(), values.double().std().item() / len(values) ** 0.5
    return mean - CONFIDENT * error, mean + CONFIDENT * error


def share_interval(members: Tensor) -> tuple[float, float]:
    """Of the share of true ones among independent values, by Wilson's formula, which holds near 0 and 1, too."""
    count, share = len(members), members.double().mean().item()
    square = CONFIDENT**2 / count
    center = (share + square / 2) / (1 + square)
    reach = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return max(0.0, center - reach), min(1.0, center + reach)
