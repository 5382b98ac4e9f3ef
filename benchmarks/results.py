"""Pages of results: JSON for programs and Markdown for people, both with the machine that they were measured on.

``python -m benchmarks.results FILE.json ...`` prints the tables of such files; ``--into PAGE.md`` writes them into a
page between the lines ``<!-- tables: begin -->`` and ``<!-- tables: end -->``.

Tested in ``tests/benchmarks/test_results.py``.
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.timing import in_one_line, spread_of

__all__ = [
    "Ratio",
    "Table",
    "add_out_option",
    "command_of",
    "page_asked",
    "page_of",
    "render",
    "render_table",
    "table",
    "unchanged",
    "write_page",
]

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


def add_out_option(parser: argparse.ArgumentParser, page: Path) -> None:
    """Add ``--out``, which :func:`page_asked` reads; ``page`` is where a run with the defaults writes."""
    default = f"default: {page.name} in benchmarks/results, if no other option is given"
    parser.add_argument("--out", type=Path, help=f"page of results, without its suffix ({default})")


def unchanged(parser: argparse.ArgumentParser, options: argparse.Namespace, but: Collection[str] = ()) -> bool:
    """Whether all options but some have their defaults."""
    return all(value == parser.get_default(name) for name, value in vars(options).items() if name not in but)


def page_asked(
    parser: argparse.ArgumentParser, options: argparse.Namespace, page: Path, but: Collection[str] = ()
) -> Path | None:
    """Where the results go, without a suffix: to ``--out``, else to ``page``; None: they are only printed.

    A run with other options than the defaults does not replace ``page``: they may be a trial's.

    Args:
        parser: Has :func:`add_out_option`.
        options: What it has parsed.
        page: Where a run with the defaults writes.
        but: Options that may have any value.
    """
    if options.out is not None:
        out: Path = options.out
        return out
    return page if unchanged(parser, options, but) else None


def command_of(module: str, arguments: Sequence[str] | None) -> str:
    """The command line that was typed.

    Args:
        module: What follows ``python -m``.
        arguments: Of its ``main``; None: those of this process.
    """
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if arguments is None else arguments)])


def write_page(base: Path, title: str, command: str, machine: Mapping[str, str], tables: Sequence[Table]) -> None:
    """Write ``base`` with the suffixes .json and .md.

    Args:
        base: Path without a suffix.
        title: Of the page.
        command: What was typed, as :func:`command_of` gives it.
        machine: What :func:`benchmarks.timing.machine_facts` gave before anything was measured.
        tables: What was measured.
    """
    page = {"title": title, "command": command, "machine": machine, "tables": list(tables)}
    base.parent.mkdir(parents=True, exist_ok=True)
    base.with_suffix(".json").write_text(json.dumps(page, indent=1) + "\n")
    base.with_suffix(".md").write_text(f"# {title}\n\n{render(page)}")


def render(page: Mapping[str, Any], *, level: int = 2) -> str:
    """The page as Markdown, without its title."""
    parts = [f"`{page['command']}`: {in_one_line(page['machine'])}."]
    if any(each["rounds"] > 1 for each in page["tables"]):
        parts.append("Medians over rounds in which the cases take turns; quartiles in parentheses.")
    parts += [render_table(each, level) for each in page["tables"]]
    return "\n\n".join(parts) + "\n"


def render_table(each: Table, level: int = 2) -> str:
    """One table as Markdown."""
    rounds = f"{each['rounds']} round{'s' if each['rounds'] != 1 else ''}"
    parts = [f"{'#' * level} {each['title']}"]
    for head, values in ((f"| {rounds} | {each['unit']} |", each["cases"]), ("| ratio | |", each["ratios"])):
        if values:
            rows = [f"| {name} | {_shown(value)} |" for name, value in values.items()]
            parts.append("\n".join([head, "| --- | --- |", *rows]))
    return "\n\n".join([*parts, *each["notes"]])


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
