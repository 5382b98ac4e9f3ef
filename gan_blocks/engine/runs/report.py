"""The report of a run: one HTML page that holds all that it shows, made from the files of the run's folder.

Tested in ``tests/engine/runs/test_report.py``.
"""

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.base.json_values import is_number, read_object
from gan_blocks.engine.runs import charts
from gan_blocks.engine.runs.charts import Curve, line_chart
from gan_blocks.engine.runs.checkpoints import step_of
from gan_blocks.engine.runs.folder import RunFolder

__all__ = ["write_report"]

Entries = Sequence[Mapping[str, Any]]

MOST_SHEETS = 12  # small; the newest is shown large besides
SMALL, LARGE = 360, 1280  # pixels across
PENALTIES, OTHERS = "Penalties", "Also logged"
CHARTS = {  # heading: pattern of names in the log
    "Losses": r"loss_.*",
    "What D says of real and of generated images": r"(real|fake)_(logits?|scores?)|d_(real|fake)",
    PENALTIES: r".*penalty(_[gd])?",
    "Norms of the class embeddings": r"embedding_norm_.*",
}
EVALUATION_CHARTS = {"Share of images that D calls real": r"called_real_.*", "Fréchet distance": r"frechet_distance.*"}
# Their sizes have nothing to do with each other: on one axis the smaller would be flat.
ALONE = (PENALTIES, OTHERS)
COLORS = tuple(f"var(--curve-{number})" for number in range(4))
NAMED_LAYERS = 3  # whose largest singular values end highest

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1f2328; --quiet: #59636e; --line: #d8dee4; --paper: #fff;
  --curve-0: #b3261e; --curve-1: #0b62b0; --curve-2: #1a7f37; --curve-3: #7d3c98 }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6e8ea; --quiet: #9da7b1; --line: #3a4149; --paper: #16191d;
  --curve-0: #ff8a80; --curve-1: #6cb6ff; --curve-2: #57d364; --curve-3: #d2a8ff }} }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 96rem; margin: 1rem auto; padding: 0 clamp(.75rem, 3vw, 2rem);
  color: var(--ink); background: var(--paper) }}
h1, h2 {{ line-height: 1.25 }} h2 {{ font-size: 1.2rem; margin: 2rem 0 .5rem }}
.box {{ overflow-x: auto }} .quiet {{ color: var(--quiet) }}
table {{ border-collapse: collapse }}
th, td {{ text-align: left; vertical-align: top; padding: .15rem 1.25rem .15rem 0 }}
td {{ overflow-wrap: anywhere }} td + td {{ font-family: ui-monospace, monospace; font-size: .875rem }}
tr {{ border-bottom: 1px solid var(--line) }}
td:first-child {{ overflow-wrap: normal }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1.25rem 2rem }}
.sheets {{ display: flex; gap: .75rem; overflow-x: auto; padding-bottom: .5rem }} .sheets figure {{ flex: none }}
.sheets img {{ display: block; height: 14rem }} .newest {{ max-width: 100% }}
{charts}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def write_report(folder: RunFolder, preset: Mapping[str, Any] | None = None) -> None:
    """Write or renew ``report.html`` from what the run's folder holds.

    Args:
        folder: The run.
        preset: The Config of the preset that it began with, as JSON values; None where there is none to compare with.
    """
    config, log = folder.config(), folder.read_log()
    parts = [] if preset is None else [_differences(preset, config)]
    parts.append(_side_by_side([*_curves(log), *_spectra(log)]))
    if folder.spectra_path.is_file():
        name = folder.spectra_path.name
        parts.append(
            f'<p class="quiet">Singular values with their ratios to the second: <a href="{name}">{name}</a></p>'
        )
    parts += _metrics(folder, log)
    parts += _sheets(folder)
    parts += _times(log)
    parts.append(_table("Config", config))
    title = html.escape(folder.title)
    page = PAGE.format(title=title, charts=charts.STYLE, body="\n".join(part for part in parts if part))
    replace_durably(folder.report_path, page.encode(errors="backslashreplace"))  # names of files may be no UTF-8


def _differences(preset: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """A row for each option whose value is not the preset's."""
    preset = json.loads(json.dumps(preset))  # a tuple equals the list that it was saved as
    rows = [
        (f"--{name.replace('_', '-')}", preset.get(name), value)
        for name, value in config.items()
        if name not in preset or preset[name] != value
    ]
    if not rows:
        return '<p class="quiet">Every option is as the preset has it.</p>'
    return _rows("What differs from the preset", rows, head=("Option", "Preset", "This run"))


def _curves(log: Entries) -> list[str]:
    entries = [entry for entry in log if "event" not in entry]
    logged = [name for name in _names(entries) if name not in ("step", "nan_scores")]
    matched = [name for name in logged if any(re.fullmatch(pattern, name) for pattern in CHARTS.values())]
    others = "|".join(re.escape(name) for name in logged if name not in matched)
    return _charts({**CHARTS, OTHERS: others}, entries)


def _charts(patterns: Mapping[str, str], entries: Entries) -> list[str]:
    parts = []
    for title, pattern in patterns.items():
        curves = [_curve(name, entries) for name in _names(entries) if re.fullmatch(pattern, name)]
        curves = [curve for curve in curves if len(curve.steps) > 1]
        together = [[curve] for curve in curves] if title in ALONE else [_in_colors(curves)]
        parts.append(_section(title, (line_chart(each) for each in together)))
    return parts


def _names(entries: Entries) -> list[str]:
    """All that the lines hold, in the order in which it came: an older version, or another file, logs other things."""
    return list(dict.fromkeys(name for entry in entries for name in entry))


def _curve(name: str, entries: Entries) -> Curve:
    pairs = [(entry["step"], entry[name]) for entry in entries if all(is_number(entry.get(x)) for x in ("step", name))]
    steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
    return Curve(name, steps, values, COLORS[0])


def _in_colors(curves: Sequence[Curve]) -> list[Curve]:
    return [
        Curve(curve.name, curve.steps, curve.values, COLORS[number % len(COLORS)])
        for number, curve in enumerate(curves)
    ]


def _section(title: str, figures: Iterable[str]) -> str:
    drawn = [figure for figure in figures if figure]
    return f"<section><h2>{html.escape(title)}</h2>\n{''.join(drawn)}</section>" if drawn else ""


def _side_by_side(sections: Iterable[str]) -> str:
    """As many as the window is wide enough for."""
    drawn = "\n".join(section for section in sections if section)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def _spectra(log: Entries) -> list[str]:
    """The largest singular value of every layer, a chart for each network, red at its input to violet at its output."""
    entries = [entry for entry in log if entry.get("event") == "spectra"]
    parts = []
    for network in ("generator", "discriminator"):
        found = [{"step": entry["step"], **_largest(entry.get(network))} for entry in entries]
        names = [name for name in _names(found) if name != "step"]
        curves = [_curve(name, found) for name in names]
        last = [curve.values[-1] if len(curve.values) else -np.inf for curve in curves]
        named = {names[place] for place in np.argsort(last)[::-1][:NAMED_LAYERS]}
        shades = [f"hsl({280 * depth / max(len(names) - 1, 1):.0f} 65% 55%)" for depth in range(len(names))]
        drawn = [
            Curve(curve.name, curve.steps, curve.values, shade, legend=curve.name in named)
            for curve, shade in zip(curves, shades, strict=True)
        ]
        title = f"Largest singular value of each layer of the {network}"
        parts.append(_section(title, [line_chart(drawn, smooth=False, logarithmic=True)]))
    return parts


def _largest(spectra: Any) -> dict[str, Any]:
    found = spectra if isinstance(spectra, Mapping) else {}
    sigmas = {name: each.get("sigmas") for name, each in found.items() if isinstance(each, Mapping)}
    return {name: values[0] for name, values in sigmas.items() if isinstance(values, list) and values}


def _metrics(folder: RunFolder, log: Entries) -> list[str]:
    """The newest evaluation by the command, and those that the training made."""
    parts = []
    if folder.evaluation_path.is_file():
        try:
            figures = _flatten(_with_class_names(read_object(folder.evaluation_path, {})))
        except UserError as error:  # a report says what it can
            figures = {"": str(error)}
        except RecursionError:
            figures = {"": f"{folder.evaluation_path} is nested too deeply to be shown."}
        parts.append(_table("Evaluation", figures))
    evaluations = [entry for entry in log if entry.get("event") == "evaluation"]
    parts.append(_side_by_side(_charts(EVALUATION_CHARTS, evaluations)))
    if evaluations:
        newest = {name: value for name, value in evaluations[-1].items() if name != "event"}
        parts.append(_table("Newest evaluation while training", _flatten(newest)))
    return parts


def _with_class_names(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures, with the names of the classes where there are their numbers."""
    names, by_class = figures.get("class_names"), figures.get("agreement_by_class")
    if not isinstance(names, list) or not isinstance(by_class, Mapping):
        return dict(figures)
    named = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    if not named or list(by_class) != list(map(str, range(len(names)))):
        return dict(figures)
    others = {name: value for name, value in figures.items() if name != "class_names"}
    return others | {"agreement_by_class": dict(zip(names, by_class.values(), strict=True))}


def _sheets(folder: RunFolder) -> list[str]:
    """The newest sheet, and before it, small and in order, some of all that there are."""
    sheets = folder.all_samples()
    if not sheets:
        return []
    chosen = np.linspace(0, len(sheets) - 1, min(len(sheets), MOST_SHEETS)).round().astype(int)
    small = [_small_sheet(sheets[place], folder) for place in chosen]
    parts = []
    if len(sheets) > 1:
        parts.append(f'<h2>Samples through time</h2>\n<div class="sheets">{"".join(small)}</div>')
    if image := _embedded(sheets[-1], LARGE):
        title = f"Samples at step {step_of(sheets[-1]):,}"
        parts.append(f'<h2>{title}</h2>\n<p><img class="newest" src="{image}" alt="Sample sheet"></p>')
    return parts


def _small_sheet(path: Path, folder: RunFolder) -> str:
    if not (image := _embedded(path, SMALL)):
        return ""
    step, source = f"step {step_of(path):,}", html.escape(str(path.relative_to(folder.path)))
    picture = f'<a href="{source}"><img src="{image}" alt="Samples at {step}"></a>'
    return f"<figure>{picture}<figcaption>{step}</figcaption></figure>"


def _embedded(path: Path, widest: int) -> str:
    """A picture as a URL that holds it, shrunk if it is wider; empty if it cannot be read."""
    try:
        with Image.open(path) as picture:
            shown = picture if picture.mode == "L" else picture.convert("RGB")
            shown.thumbnail((widest, 8 * widest))
            format_ = "PNG" if shown.mode == "L" else "JPEG"
            data = io.BytesIO()
            shown.save(data, format=format_, quality=90)
    except Exception:  # of a dozen kinds, where the bytes make no sense: a report says what it can
        return ""
    return f"data:image/{format_.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"


def _times(log: Entries) -> list[str]:
    """How long the training took, and what share of the last session's time it waited for images."""
    saved = [entry for entry in log if entry.get("event") == "checkpoint" and is_number(entry.get("seconds"))]
    if not saved:
        return []
    times = {"Seconds of training": f"{saved[-1]['seconds']:,.0f}"}
    if is_number(waited := saved[-1].get("waiting_for_data")):
        times["Share of them spent waiting for images"] = f"{waited:.1%}"
    return [_table("Time", times)]


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    def show(value: Any) -> Any:
        if _is_score(value):
            interval = value["interval"]
            between = f" ({show(interval[0])} to {show(interval[1])})" if interval else ""
            real = "" if value["floor"] is None else f", other real images {show(value['floor'])}"
            return f"{show(value['value'])}{between}{real}"
        if isinstance(value, Mapping):
            return ", ".join(f"{name}: {show(inner)}" for name, inner in value.items()) or "none"
        if isinstance(value, list):
            return ", ".join(str(show(inner)) for inner in value) or "none"
        if value is None:
            return "none"
        return f"{value:.4g}" if isinstance(value, float) else value

    return {value["name"] if _is_score(value) else name: show(value) for name, value in values.items()}


def _is_score(value: Any) -> bool:
    """Whether a figure is one of those with an interval and that of other real images."""
    if not isinstance(value, Mapping) or not value.keys() >= {"name", "value", "interval", "floor"}:
        return False
    interval, floor = value["interval"], value["floor"]
    pair = interval is None or (isinstance(interval, list) and len(interval) == 2)
    return isinstance(value["name"], str) and pair and (floor is None or is_number(floor))


def _table(title: str, values: Mapping[str, Any]) -> str:
    return _rows(title, values.items())


def _rows(title: str, rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> str:
    def show(value: Any) -> str:
        return html.escape(" ".join(map(str, value)) if isinstance(value, list) else str(value))

    lines = ["".join(f"<th>{name}</th>" for name in head)] if head else []
    lines += ["".join(f"<td>{show(value)}</td>" for value in row) for row in rows]
    table = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<h2>{html.escape(title)}</h2>\n<div class="box"><table>\n{table}\n</table></div>'
