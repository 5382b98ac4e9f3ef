"""Pages of results: JSON for programs and Markdown for people, both with the machine that they were measured on.

``python -m benchmarks.results FILE.json ...`` prints the tables of such files; ``--into PAGE.md`` writes them into a
page between the lines ``<!-- tables: begin -->`` and ``<!-- tables: end -->``.

Tested in ``tests/benchmarks/test_results.py``.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.timing import machine_facts, spread_of

__all__ = ["Ratio", "Table", "page_of", "render", "render_table", "table", "write_page"]

Table = dict[str, Any]
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


class Ratio(NamedTuple):
    """How many times as much one case takes as another, round by round."""

    more: str
    less: str


def table(
    title: str,
    measured: Mapping[str, Sequence[float]],
    ratios: Sequence[Ratio] = (),
    *,
    unit: str = "s",
    notes: Sequence[str] = (),
) -> Table:
    """What was measured in turn, as a value that JSON can hold.

    Args:
        title: What a round does.
        measured: The values of each case in all rounds.
        ratios: Cases to compare; those that were not measured are left out.
        unit: Of the values.
        notes: Sentences below the table.
    """
    wanted = [ratio for ratio in ratios if ratio.more in measured and ratio.less in measured]
    quotients = {
        f"{more} / {less}": [one / other for one, other in zip(measured[more], measured[less], strict=True)]
        for more, less in wanted
    }
    return {
        "title": title,
        "unit": unit,
        "rounds": max((len(values) for values in measured.values()), default=0),
        "cases": {name: {**spread_of(values)._asdict(), "values": list(values)} for name, values in measured.items()},
        "ratios": {name: spread_of(values)._asdict() for name, values in quotients.items()},
        "notes": list(notes),
    }


def page_of(theme: str) -> Path:
    """Where the results of a theme on this machine go, without a suffix."""
    folder, instructions = Path(__file__).parent / "results", torch.backends.cpu.get_cpu_capability().lower()
    return folder / f"{theme}_cpu{os.cpu_count()}_{instructions}_{time.strftime('%Y%m')}"


def write_page(base: Path, title: str, command: str, tables: Sequence[Table]) -> None:
    """Write ``base`` with the suffixes .json and .md."""
    page = {"title": title, "command": command, "machine": machine_facts(), "tables": list(tables)}
    base.parent.mkdir(parents=True, exist_ok=True)
    base.with_suffix(".json").write_text(json.dumps(page, indent=1) + "\n")
    base.with_suffix(".md").write_text(f"# {title}\n\n{render(page)}")


def render(page: Mapping[str, Any], *, level: int = 2) -> str:
    """The page as Markdown, without its title."""
    facts = ", ".join(f"{name} {value}" for name, value in page["machine"].items())
    parts = [
        f"`{page['command']}`: {facts}.\n\nMedians of rounds in which every case had its turn; quartiles in brackets."
    ]
    parts += [render_table(each, level) for each in page["tables"]]
    return "\n\n".join(parts) + "\n"


def render_table(each: Table, level: int = 2) -> str:
    """One table as Markdown."""
    head = f"{'#' * level} {each['title']}"
    lines = [f"| {each['rounds']} rounds | {each['unit']} |", "| --- | --- |"]
    lines += [f"| {name} | {_shown(values)} |" for name, values in each["cases"].items()]
    if each["ratios"]:
        lines += ["", "| ratio | |", "| --- | --- |"]
        lines += [f"| {name} | {_shown(values)} |" for name, values in each["ratios"].items()]
    return "\n\n".join([head, "\n".join(lines), *each["notes"]])


def _shown(values: Mapping[str, float]) -> str:
    digits = 0 if values["median"] >= 100 else 2 if values["median"] >= 1 else 3
    median, low, high = (f"{values[name]:,.{digits}f}" for name in ("median", "low", "high"))
    return median if low == high else f"{median} ({low}, {high})"


def main() -> None:
    """Print the tables of files, or put them into a page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description="Show what benchmarks have written."
    )
    parser.add_argument("files", nargs="+", type=Path, help="JSON files of results")
    parser.add_argument("--into", type=Path, help="a Markdown page with a place for tables")
    options = parser.parse_args()
    text = "\n".join(_section(parser, file) for file in options.files)
    if options.into is None:
        print(text, end="")
        return
    try:
        before, begin, rest = options.into.read_text().partition(BEGIN)
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"{options.into} cannot be read: {getattr(error, 'strerror', 'it is no text')}.")
    _, end, after = rest.partition(END)
    if not begin or not end:
        parser.error(f"{options.into} must have a line {BEGIN} and, below it, a line {END}.")
    options.into.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")


def _section(parser: argparse.ArgumentParser, file: Path) -> str:
    try:
        page = json.loads(file.read_text())
        return f"### {page['title']}\n\n{render(page, level=4)}"
    except OSError as error:
        parser.error(f"{file} cannot be read: {error.strerror}.")
    except (ValueError, LookupError, TypeError, AttributeError):
        parser.error(f"{file} must be a .json file that a benchmark has written.")


if __name__ == "__main__":
    main()
