"""The picture of a run's spectra, after Figure 3 of Brock et al. 2018: each layer's largest singular value by step.

Tested in ``tests/engine/pictures/test_spectra.py``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from gan_blocks.engine.pictures.figures import new_figure, save_figure

# matplotlib is imported when something is drawn: it would add a second to the start of every command.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SigmaCurves", "draw_spectra", "thinned"]

COLORS = "rainbow_r"  # red to violet
MOST_POINTS = 1000  # of a curve: no page has pixels for more
NAMED = 3  # in the legend

Array = npt.NDArray[np.float64]


class SigmaCurves(NamedTuple):
    """The largest singular values of one network by step."""

    steps: npt.NDArray[np.int64]
    """Steps after which it was measured, increasing, ``(measurements,)``."""
    layers: tuple[str, ...]
    """Names of the layers by depth."""
    sigmas: npt.NDArray[np.float64]
    """Singular values, largest first, ``(layers, measurements, k)``; NaN where a layer has fewer."""


def draw_spectra(path: Path, curves: Mapping[str, SigmaCurves], title: str) -> None:
    """Write a PNG with a row for each network: sigma_0 of every layer on the left, sigma_0 / sigma_1 on the right.

    Raises:
        UserError: If it cannot be written.
    """
    figure = new_figure(12, 4.5 * len(curves) + 0.4, dpi=100)
    figure.suptitle(title, fontsize="x-large")
    grid = figure.subplots(len(curves), 2, sharex=True, squeeze=False)
    for (left, right), (name, network) in zip(grid, curves.items(), strict=True):
        _draw_curves(left, network, network.sigmas[..., 0])
        _draw_curves(right, network, _ratio(network.sigmas))
        left.set(title=f"{name.capitalize()}: largest singular value of each layer", ylabel="$\\sigma_0$")
        right.set(title=f"{name.capitalize()}: its ratio to the second", ylabel="$\\sigma_0\\,/\\,\\sigma_1$")
        _add_color_bar(figure, right, len(network.layers))
    for axes in grid[-1]:
        axes.set_xlabel("step (updates of G)")
    save_figure(path, figure)


def _ratio(sigmas: Array) -> Array:
    """sigma_0 / sigma_1; NaN where there is no second singular value, or it is zero."""
    second = sigmas[..., 1]
    return np.divide(sigmas[..., 0], second, out=np.full_like(second, np.nan), where=second > 0)


def _draw_curves(axes: "Axes", network: SigmaCurves, values: Array) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    steps, values = thinned(network.steps, np.where(values > 0, values, np.nan))  # a zero has no place on this axis
    shades = colormaps[COLORS](np.linspace(0, 1, len(values)))
    marker = "." if len(steps) == 1 else None
    lines = [
        axes.plot(steps, row, color=shade, linewidth=1, marker=marker)[0]
        for row, shade in zip(values, shades, strict=True)
    ]
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    low, high = min(low, 0.99 * high), max(high, 1.01 * low)  # fresh orthogonal weights are all alike
    axes.set_ylim(low, high * (high / low) ** 0.3)  # room for the legend, where it hides no curve
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    if high < 10 * low:  # powers of ten and their multiples would be one or two labels
        axes.yaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="both", linewidth=0.4, alpha=0.5)
    last = values[:, -1]
    largest = [depth for depth in np.argsort(-last) if np.isfinite(last[depth])][:NAMED]
    labels = [f"{network.layers[depth]} ({last[depth]:.3g})" for depth in largest]
    axes.legend([lines[depth] for depth in largest], labels, title="largest at the end", loc="upper left")


def thinned(steps: npt.NDArray[np.int64], values: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """At most MOST_POINTS points, each the largest of its share of the measurements: no spike is lost."""
    if len(steps) <= MOST_POINTS:
        return steps, values
    starts = np.arange(MOST_POINTS) * len(steps) // MOST_POINTS
    return steps[starts], np.fmax.reduceat(values, starts, axis=1)


def _add_color_bar(figure: "Figure", axes: "Axes", count: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    depths = ScalarMappable(Normalize(0, max(count - 1, 1)), COLORS)
    bar = figure.colorbar(depths, ax=axes, label="depth (0: first layer)", ticks=MaxNLocator(integer=True))
    bar.ax.invert_yaxis()
