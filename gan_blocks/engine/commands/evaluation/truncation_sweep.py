"""``gan-blocks evaluate --truncation-sweep``: quality against variety, after Figures 17 to 19 of Brock et al. 2018.

Tested in ``tests/engine/commands/evaluation/test_truncation_sweep.py``.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.commands.evaluation.options import Options
from gan_blocks.engine.commands.evaluation.tables import Found, encoded
from gan_blocks.engine.evaluation.real_side import RealSide
from gan_blocks.engine.pictures.figures import new_figure, save_figure
from gan_blocks.engine.recipe.next_steps import Steps, console_command, of_run, print_next_steps

__all__ = ["Point", "draw_curve", "evaluate_or_sweep", "operating_points"]

CarryOut = Callable[[Options, Mapping[str, Fields], RealSide | None], tuple[RealSide | None, Found]]
QUALITY = "classifier_score", "precision"  # the first of these that was measured
VARIETY = "frechet_distance"


class Point(NamedTuple):
    """What samples of one truncation have."""

    truncation: float | None
    """None: not truncated."""
    distance: float
    quality: float

    @property
    def name(self) -> str:
        """The truncation in words."""
        return "none" if self.truncation is None else f"{self.truncation:g}"


def evaluate_or_sweep(options: Options, asked: Mapping[str, Fields], carry_out: CarryOut) -> Found:
    """Evaluate; with a sweep at each truncation and then without, all against the same images."""
    if not options.truncation_sweep:
        return carry_out(options, asked, None)[1]
    side: RealSide | None = None
    found: list[tuple[float | None, Found]] = []
    for truncation in (*sorted(set(options.truncation_sweep)), None):  # last what evaluation.json keeps
        kind = None if truncation is None else options.truncation_by
        one = replace(options, truncation=truncation, truncation_by=kind, truncation_sweep=(), out=None)
        print(f"Truncation {'none' if truncation is None else f'{truncation:g}'}:")
        side, values = carry_out(one, asked, side)
        found.append((truncation, values))
    return _told(options, found)


def _told(options: Options, found: list[tuple[float | None, Found]]) -> Found:
    """Write the curve, draw it, and say where one would work on it."""
    assert options.run is not None
    last = found[-1][1]
    quality = next(name for name in QUALITY if name in last)
    points = [Point(at, values[VARIETY]["value"], values[quality]["value"]) for at, values in found]
    real = last[quality]["floor"]
    picked = operating_points(points, real)
    path = options.out or options.run / "truncation.json"
    what: dict[str, Any] = {
        "by": options.truncation_by or "threshold",
        "points": [values for _, values in found],
        "operating_points": {name: point._asdict() for name, point in picked.items()},
    }
    replace_durably(path, encoded(what), remedy="The figures above are not saved.")
    names = last[VARIETY]["name"], last[quality]["name"]
    draw_curve(path.with_suffix(".png"), points, picked, real, names)
    for name, point in picked.items():
        where = f"truncation {point.name:<6} {names[0]} {point.distance:.4g}, {names[1]} {point.quality:.4g}"
        print(f"{name:<24} {where}")
    print(f"Truncation curve: {path.with_suffix('.png')}")
    print_next_steps(_draw_at(options, picked))
    return last


def _draw_at(options: Options, picked: Mapping[str, Point]) -> Steps:
    """Samples of each point."""
    assert options.run is not None
    draw = console_command("sample", *of_run(options.run, options.recipe))
    by = [] if options.truncation_by is None else ["--truncation-by", options.truncation_by]
    return {
        name: draw if point.truncation is None else [*draw, "--truncation", point.truncation, *by]
        for name, point in picked.items()
    }


def operating_points(points: list[Point], real_quality: float | None) -> dict[str, Point]:
    """The points of Table 2: without truncation, at the least distance, at the quality of real images, at the best.

    Args:
        points: All of the curve.
        real_quality: The quality of real images; without it that point is left out.
    """
    picked = {
        "no truncation": next((point for point in points if point.truncation is None), points[-1]),
        "least distance": min(points, key=lambda point: point.distance),
    }
    if real_quality is not None:
        picked["quality of real images"] = min(points, key=lambda point: abs(point.quality - real_quality))
    return picked | {"best quality": max(points, key=lambda point: point.quality)}


def draw_curve(
    path: Path, points: list[Point], picked: Mapping[str, Point], real_quality: float | None, names: tuple[str, str]
) -> None:
    """Write a PNG of the distance against the quality, each point with its truncation.

    Raises:
        UserError: If it cannot be written.
    """
    figure = new_figure(7, 5, dpi=100)
    axes = figure.subplots()
    axes.plot([point.quality for point in points], [point.distance for point in points], ".-", color="0.4")
    for point in points:
        axes.annotate(point.name, (point.quality, point.distance), textcoords="offset points", xytext=(4, 4))
    for number, (name, point) in enumerate(picked.items()):
        size = 14 - 3 * number  # several may be one point
        axes.plot(point.quality, point.distance, "o", color=f"C{number}", markersize=size, fillstyle="none", label=name)
    if real_quality is not None:
        axes.axvline(real_quality, linestyle=":", color="0.6", label="real images")
    axes.set(xlabel=f"{names[1]} (higher is better)", ylabel=f"{names[0]} (lower is better)", title="Truncation")
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)
    axes.legend()
    save_figure(path, figure)
