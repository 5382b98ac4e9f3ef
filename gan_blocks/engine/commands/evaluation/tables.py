"""How ``gan-blocks evaluate`` puts figures side by side, and what it says against them.

Tested in ``tests/engine/commands/test_evaluate.py``.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.evaluation.metric import Report
from gan_blocks.engine.evaluation.quality import QualityReport

__all__ = ["Found", "doubts", "encoded", "table"]

Found = dict[str, Any]

FEW = 1000
NAME_WIDTH, COLUMN_WIDTH = 30, 16
MOST_COLUMNS = 4  # that 100 letters hold


def encoded(found: Mapping[str, Any]) -> bytes:
    """Figures as JSON."""
    return json.dumps(found, indent=2).encode() + b"\n"


def table(found: Mapping[str, Found]) -> list[str]:
    """One row a figure that all of them have, one column a run; more runs than a line holds follow below."""
    figures = {_column(name, found): dict(_figures(values)) for name, values in found.items()}
    names = [name for name in next(iter(figures.values())) if all(name in each for each in figures.values())]
    lines: list[str] = []
    columns = list(figures)
    for first in range(0, len(columns), MOST_COLUMNS):
        part = columns[first : first + MOST_COLUMNS]
        lines.append(" " * NAME_WIDTH + "".join(f"{_end(name):>{COLUMN_WIDTH}}" for name in part))
        for name in names:
            values = "".join(f"{figures[column][name]:>{COLUMN_WIDTH}.4g}" for column in part)
            lines.append(f"{_end(name, NAME_WIDTH - 1):<{NAME_WIDTH}}{values}")
    return lines


def _column(path: str, paths: Mapping[str, object]) -> str:
    """The name of a folder, or its path where another folder has that name, too."""
    name = Path(path).name
    return name if sum(Path(each).name == name for each in paths) == 1 else path


def _figures(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The plain numbers, and the values of scores by their names."""
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(value.get("value"), int | float):
            yield str(value.get("name", name)), value["value"]
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "seed":
            yield name, value


def _end(name: str, width: int = COLUMN_WIDTH - 2) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"


def doubts(reports: Mapping[str, Report], real: ImageSet) -> Iterator[str]:
    """What a reader should know before trusting the figures, a line each."""
    quality = reports.get("quality")
    if not isinstance(quality, QualityReport):
        return
    if quality.num_generated < FEW:
        count = f"{quality.num_generated:,} samples are few"
        yield f"Note: {count}: these figures vary much from seed to seed; {FEW:,} or more tell runs apart."
    if quality.classifier_accuracy is None:
        return
    chance = torch.bincount(real.labels).max().item() / len(real)
    tested = max(1.0, 0.2 * len(real))
    if quality.classifier_accuracy <= chance + 2 * math.sqrt(chance * (1 - chance) / tested):
        shares = f"{quality.classifier_accuracy:.1%} of unseen real images, where chance finds {chance:.1%}"
        yield f"Note: the classifier finds the class of {shares}: its agreement says nothing."
