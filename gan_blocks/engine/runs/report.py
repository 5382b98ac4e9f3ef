"""The report of a run: one HTML page with the newest sheet, the losses, the evaluation and the Config.

Tested in ``tests/engine/runs/test_folder.py``.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.base.json_values import is_number, read_object
from gan_blocks.engine.runs.folder import RunFolder

__all__ = ["write_report"]

WIDTH, HEIGHT = 640, 200
MOST_POINTS = 400  # of a curve: more than the page has pixels for only makes it slow
PENALTIES = "Penalties"
CHARTS = {  # heading: pattern of names in the log
    "Losses": r"loss_.*",
    PENALTIES: r".*penalty(_[gd])?",
    "Norms of the class embeddings": r"embedding_norm_.*",
}
EVALUATION_CHARTS = {"Share of images that D calls real": r"called_real_.*", "Fréchet distance": r"frechet_distance.*"}
COLORS = ("#c0392b", "#2471a3", "#1e8449", "#7d3c98")

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }}
img {{ max-width: 100% }} table {{ border-collapse: collapse }} td {{ padding: .1rem 1rem .1rem 0 }}
td:last-child {{ font-family: ui-monospace, monospace }} svg text {{ font: 12px system-ui, sans-serif }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def write_report(folder: RunFolder) -> None:
    """Write or renew ``report.html`` from what the run's folder holds."""
    parts = []
    if sheet := folder.newest_samples():
        step = int(sheet.stem.removeprefix("step_"))
        source = sheet.relative_to(folder.path)
        parts.append(f'<h2>Samples at step {step:,}</h2>\n<p><img src="{source}" alt="Sample sheet"></p>')
    log = folder.read_log()
    parts += _curves(log)
    parts += _times(log)
    if folder.spectra_path.is_file():
        picture = f'<img src="{folder.spectra_path.name}" alt="Largest singular values of every layer by step">'
        parts.append(f"<h2>Spectra</h2>\n<p>{picture}</p>")
    if folder.evaluation_path.is_file():
        try:
            figures = _flatten(read_object(folder.evaluation_path, {}))
        except UserError as error:  # a report says what it can
            figures = {"": str(error)}
        parts.append(_table("Evaluation", figures))
    parts.append(_table("Config", folder.config()))
    title = html.escape(folder.title)
    replace_durably(folder.report_path, PAGE.format(title=title, body="\n".join(parts)).encode())


def _curves(log: Sequence[Mapping[str, Any]]) -> list[str]:
    steps = [entry for entry in log if "event" not in entry]
    evaluations = [entry for entry in log if entry.get("event") == "evaluation"]
    return [*_charts(CHARTS, steps), *_charts(EVALUATION_CHARTS, evaluations)]


def _charts(patterns: Mapping[str, str], entries: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    for title, pattern in patterns.items():
        names = [name for name in (entries[-1] if entries else {}) if re.fullmatch(pattern, name)]
        # The lines of a run that an older version began lack what that did not log; those of a recipe may hold more.
        lines = [entry for entry in entries if all(is_number(entry.get(name)) for name in ("step", *names))]
        if names and len(lines) > 1:
            steps, *curves = (np.array([line[name] for line in lines], dtype=float) for name in ("step", *names))
            named = dict(zip(names, curves, strict=True))
            # Penalties have sizes of their own: on one axis the smaller would be flat.
            charts = [{name: curve} for name, curve in named.items()] if title == PENALTIES else [named]
            parts += [f"<h2>{title}</h2>", *(_chart(steps, each) for each in charts)]
    return parts


def _times(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """How long the training took, and what share of the last session's time it waited for images."""
    saved = [entry for entry in log if entry.get("event") == "checkpoint" and is_number(entry.get("seconds"))]
    if not saved:
        return []
    times = {"Seconds of training": f"{saved[-1]['seconds']:,.0f}"}
    if is_number(waited := saved[-1].get("waiting_for_data")):
        times["Share of them spent waiting for images"] = f"{waited:.1%}"
    return [_table("Time", times)]


def _chart(x: npt.NDArray[np.float64], curves: Mapping[str, npt.NDArray[np.float64]]) -> str:
    """A line chart as inline SVG; each point is the mean over an equal share of the steps."""
    shares = np.array_split(np.arange(len(x)), min(len(x), MOST_POINTS))
    means = {name: np.array([y[share].mean() for share in shares]) for name, y in curves.items()}
    at = np.array([x[share].mean() for share in shares])
    low, high = min(y.min() for y in means.values()), max(y.max() for y in means.values())
    across = (at - at[0]) / (np.ptp(at) or 1) * (WIDTH - 60) + 50
    lines, caption_at = [], 60
    for number, (name, y) in enumerate(means.items()):
        up = HEIGHT - 25 - (y - low) / ((high - low) or 1) * (HEIGHT - 40)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True))
        color = COLORS[number % len(COLORS)]
        lines.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.2"/>')
        lines.append(f'<text x="{caption_at}" y="12" fill="{color}">{html.escape(name)}</text>')
        caption_at += 20 + 7 * len(name)
    lines.append(f'<text x="45" y="{HEIGHT - 22}" text-anchor="end">{low:.3g}</text>')
    lines.append(f'<text x="45" y="20" text-anchor="end">{high:.3g}</text>')
    lines.append(f'<text x="{WIDTH - 10}" y="{HEIGHT - 5}" text-anchor="end">step {x[-1]:,.0f}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">' + "".join(lines) + "</svg>"


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    def show(value: Any) -> Any:
        if isinstance(value, Mapping):
            return ", ".join(f"{name}: {show(inner)}" for name, inner in value.items()) or "none"
        return f"{value:.4g}" if isinstance(value, float) else value

    return {name: show(value) for name, value in values.items()}


def _table(title: str, values: Mapping[str, Any]) -> str:
    def show(value: Any) -> str:
        return html.escape(" ".join(map(str, value)) if isinstance(value, list) else str(value))

    rows = "\n".join(f"<tr><td>{html.escape(name)}</td><td>{show(value)}</td></tr>" for name, value in values.items())
    return f"<h2>{title}</h2>\n<table>\n{rows}\n</table>"
