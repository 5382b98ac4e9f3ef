"""Several benchmarks by one command: each has its share of the minutes, and a page of results grows with each.

What fails is named at the end, and the others still run.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.results import Table, add_out_option, render_table, write_page
from benchmarks.timing import add_clock_option, clock_of, in_one_line, machine_facts

__all__ = ["Benchmark", "Turn", "add_options", "check_names", "measure_all", "set_threads"]

MOST_ROUNDS = 25


class Turn(NamedTuple):
    """How a benchmark measures."""

    clock: Callable[[], float]
    rounds: int
    """At most so many count."""
    seconds: float
    """No round begins after so many, once three have been counted."""

    def part(self, share: float) -> "Turn":
        """The same with a share of the seconds."""
        return self._replace(seconds=share * self.seconds)


class Benchmark(NamedTuple):
    """What measures, and its share of the time."""

    measure: Callable[[Turn], list[Table]]
    share: float


def add_options(parser: argparse.ArgumentParser, names: Sequence[str], *, page: Path, minutes: float) -> None:
    """Add what such commands have in common, ``names`` among it."""
    parser.add_argument("names", nargs="*", default=[], help=f"which (default: all): {', '.join(names)}")
    rounds = "each is measured three times at least, and building comes on top"
    parser.add_argument("--minutes", type=float, default=minutes, help=f"for all of them; {rounds}")
    parser.add_argument("--rounds", type=int, default=MOST_ROUNDS, help="at most so many measurements of each")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    add_out_option(parser, page)
    add_clock_option(parser)


def check_names(parser: argparse.ArgumentParser, asked: Sequence[str], known: Sequence[str]) -> None:
    """End the command if a name is unknown."""
    if unknown := [name for name in asked if name not in known]:
        parser.error(f"there is no benchmark {unknown[0]}; the names are {', '.join(known)}.")


def set_threads(options: argparse.Namespace) -> None:
    """As many as were asked for."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)


def measure_all(
    benchmarks: Mapping[str, Benchmark], options: argparse.Namespace, *, page: Path | None, title: str, command: str
) -> int:
    """Measure, print and write all; the status is 1 if one has failed.

    Args:
        benchmarks: By name.
        options: Those of :func:`add_options`.
        page: Where the results go, without a suffix; None: they are only printed.
        title: Of the page.
        command: What was typed, for the page.
    """
    whole = sum(benchmark.share for benchmark in benchmarks.values())
    tables: list[Table] = []
    failed: list[str] = []
    facts = machine_facts()
    print(in_one_line(facts))
    for name, (measure, share) in benchmarks.items():
        began = time.perf_counter()
        try:
            found = measure(Turn(clock_of(options), options.rounds, 60 * options.minutes * share / whole))
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        tables += found
        if page is not None:
            write_page(page, title, command, facts, tables)
        print("\n".join(f"\n{render_table(each)}" for each in found))
        print(f"\n({name}: {time.perf_counter() - began:.0f} s in all)", flush=True)
    if tables and page is not None:
        print(f"Results: {page.with_suffix('.md')} and {page.with_suffix('.json').name}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
