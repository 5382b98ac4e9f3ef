"""Line charts as inline SVG for a page that fetches nothing and follows the reader's light or dark colors.

Tested in ``tests/engine/runs/test_charts.py``.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["STYLE", "Curve", "line_chart"]

Array = npt.NDArray[np.float64]

WIDTH, HEIGHT = 480, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 26  # of the box that the curves are in
MOST_POINTS = 400  # of a curve: no page has pixels for more
WINDOW = 50  # a smoothed point is a mean over about so small a share of the training
STYLE = """
figure { margin: 0; min-width: 0 }
figcaption { display: flex; flex-wrap: wrap; gap: 0 1rem; font-size: .875rem; overflow-wrap: anywhere }
figcaption i { display: inline-block; width: .75rem; height: .2rem; margin-right: .4rem; vertical-align: middle }
svg { display: block; width: 100%; height: auto }
svg text { font: 13px system-ui, sans-serif; fill: var(--quiet) }
svg path { fill: none; stroke: var(--line); vector-effect: non-scaling-stroke }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; vector-effect: non-scaling-stroke }
svg .raw { stroke-width: 1; opacity: .3 }
svg .thin { stroke-width: 1 }
"""


@dataclass(frozen=True)
class Curve:
    """A quantity by step, in order; values that are not finite are left out."""

    name: str
    steps: Array
    values: Array
    color: str
    """What CSS takes for a color."""
    legend: bool = True
    """Whether the caption names it, with its last value."""


def line_chart(curves: Sequence[Curve], *, smooth: bool = True, logarithmic: bool = False) -> str:
    """Draw curves on one pair of axes.

    Args:
        curves: What to draw; of no values nothing comes.
        smooth: Draw each faint as it is, and smoothed over it; the axis then leaves out a hundredth of the values on
            either side, so that a spike does not make the rest flat.
        logarithmic: Whether the axis of values is; values up to 0 have no place on it.

    Returns:
        A figure with its caption; an empty string where there is nothing to draw.
    """
    scaled = [one for curve in curves if len((one := _finite(curve, logarithmic)).steps)]
    if not scaled:
        return ""
    thin = [_Thinned(curve.steps, curve.values) for curve in scaled]
    lines = [smoothed(each.means) if smooth else each.means for each in thin]
    reach = [np.percentile(curve.values, (1, 99)) for curve in scaled] if smooth else [each.extremes for each in thin]
    low, high = _widened(np.concatenate(reach), logarithmic)
    first, last = min(curve.steps[0] for curve in scaled), max(curve.steps[-1] for curve in scaled)
    frame = _Frame(first, max(last, first + 1), low, high)
    parts = [_axes(frame, logarithmic)]
    for curve, each, line in zip(scaled, thin, lines, strict=True):
        if smooth:
            parts.append(frame.polyline(np.repeat(each.at, 2), each.extremes, curve.color, "raw"))
        parts.append(frame.polyline(each.at, line, curve.color, "" if smooth else "thin"))
    last_values = [line[-1] for line in lines]
    names = ", ".join(curve.name for curve in scaled if curve.legend)
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(names)} by step">'
        f"{''.join(parts)}</svg>{_caption(scaled, last_values, logarithmic)}</figure>"
    )


def smoothed(values: Array) -> Array:
    """Means of each value and its neighbors, weighted by a Gaussian; at the ends of those that there are."""
    reach = len(values) / WINDOW
    if reach < 1:
        return values
    offsets = np.arange(-math.ceil(3 * reach), math.ceil(3 * reach) + 1)
    weights = np.exp(-((offsets / reach) ** 2) / 2)
    means: Array = np.convolve(values, weights, "same") / np.convolve(np.ones_like(values), weights, "same")
    return means


class _Thinned:
    """A curve in equal shares of its points: where each is, its mean, and its least and largest in turn."""

    def __init__(self, steps: Array, values: Array) -> None:
        shares = np.array_split(np.arange(len(steps)), min(len(steps), MOST_POINTS))
        self.at = np.array([steps[share].mean() for share in shares])
        self.means = np.array([values[share].mean() for share in shares])
        self.extremes = np.array([end for share in shares for end in (values[share].min(), values[share].max())])


@dataclass(frozen=True)
class _Frame:
    """From values to places in the picture."""

    first: float
    last: float
    low: float
    high: float

    def across(self, steps: Array) -> Array:
        return LEFT + (steps - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def down(self, values: Array) -> Array:
        inside = np.clip(values, self.low, self.high)
        return HEIGHT - BOTTOM - (inside - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)

    def polyline(self, steps: Array, values: Array, color: str, kind: str) -> str:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(self.across(steps), self.down(values), strict=True))
        return f'<polyline class="{kind}" points="{points}" style="stroke:{color}"/>'


def _finite(curve: Curve, logarithmic: bool) -> Curve:
    kept = np.isfinite(curve.values) & ((curve.values > 0) | (not logarithmic))
    values = np.log10(curve.values[kept]) if logarithmic else curve.values[kept]
    return Curve(curve.name, curve.steps[kept], values, curve.color, curve.legend)


def _widened(values: Array, logarithmic: bool) -> tuple[float, float]:
    """The ends of the axis, which are apart also where all values are alike."""
    low, high = float(values.min()), float(values.max())
    room = 0.04 * (high - low) or (0.02 if logarithmic else 0.05 * abs(high) or 1.0)
    return low - room, high + room


def _axes(frame: _Frame, logarithmic: bool) -> str:
    parts = []
    for value, text in _value_ticks(frame.low, frame.high, logarithmic):
        (y,) = frame.down(np.array([value]))
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4.5:.1f}" text-anchor="end">{text}</text>')
    for step in ticks(frame.first, frame.last):
        if step.is_integer():
            (x,) = frame.across(np.array([step]))
            anchor = "end" if x > WIDTH - 30 else "middle"
            text = f"{step / 1000:.10g}k" if step >= 10_000 else f"{step:,.0f}"
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{text}</text>')
    return "".join(parts)


def _value_ticks(low: float, high: float, logarithmic: bool) -> Iterable[tuple[float, str]]:
    if not logarithmic:
        return [(value, f"{value:.10g}") for value in ticks(low, high)]
    powers = range(math.floor(low), math.ceil(high))
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [factor * 10.0**power for power in powers for factor in factors]
        inside = [value for value in found if low <= math.log10(value) <= high]
        if len(inside) > 2:
            break
    else:
        inside = [value for value in ticks(10**low, 10**high) if value > 0]
    return [(math.log10(value), f"{value:.10g}") for value in inside]


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from ``low`` to ``high``."""
    unit = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = max(unit * factor for factor in (1, 2, 5) if unit * factor <= (high - low) / 3)
    # Of whole multiples: sums of steps would show what a tenth lacks in binary.
    return [float(f"{number * step:.10g}") for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _caption(curves: Sequence[Curve], last_values: Sequence[float], logarithmic: bool) -> str:
    entries = [
        f'<span><i style="background:{curve.color}"></i>{html.escape(curve.name)} '
        f"{10**value if logarithmic else value:.4g}</span>"
        for curve, value in zip(curves, last_values, strict=True)
        if curve.legend
    ]
    return f"<figcaption>{''.join(entries)}</figcaption>"
