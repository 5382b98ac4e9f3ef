"""Table 1 of Sinha et al. 2020 beside what was measured here, as Markdown."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Row", "tabulate"]

# Per cent by number of modes: high quality of GAN and top-k GAN, recovered modes of both.
PAPER = {25: ((85.6, 95.5), (100.0, 100.0)), 64: ((73.8, 81.8), (96.2, 100.0)), 100: ((40.3, 54.7), (94.6, 100.0))}


class Row(NamedTuple):
    """What was measured for a number of modes, in per cent by arm (plain, top-k) and seed."""

    modes: int
    seeds: int
    steps: int
    high_quality: Sequence[Sequence[float]]
    recovered: Sequence[Sequence[float]]


def tabulate(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over the seeds, the paper's figure in parentheses."""
    lines = [
        "| modes | seeds | steps | high quality, GAN (paper) | top-k GAN (paper) "
        "| modes recovered, GAN (paper) | top-k GAN (paper) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            f"{_spread(seeds)} ({paper:.1f})"
            for measured, published in zip((row.high_quality, row.recovered), PAPER[row.modes], strict=True)
            for seeds, paper in zip(measured, published, strict=True)
        ]
        lines.append(f"| {row.modes} | {row.seeds} | {row.steps:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
