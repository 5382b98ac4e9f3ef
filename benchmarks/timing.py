"""How the benchmarks time: by which clock, in turn, and what they say of the machine."""

import argparse
import math
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = [
    "Case",
    "Spread",
    "add_clock_option",
    "clock_of",
    "commit_of",
    "in_one_line",
    "machine",
    "machine_facts",
    "spread_of",
    "timed_apart",
    "timed_in_turn",
]

LEAST_ROUNDS = 3  # quartiles of fewer say nothing


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread_of(values: Iterable[float]) -> Spread:
    """The middle half of some values."""
    values = list(values)
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def add_clock_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--cpu-time``, which :func:`clock_of` reads."""
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time: on a busy machine, with one thread")


def clock_of(options: argparse.Namespace) -> Callable[[], float]:
    """Seconds by the clock that was asked for."""
    return time.process_time if options.cpu_time else time.perf_counter


def machine() -> str:
    """What figures depend on, in one line, for a benchmark that only prints."""
    return in_one_line(machine_facts())


def in_one_line(facts: Mapping[str, str]) -> str:
    """The facts of :func:`machine_facts`."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def machine_facts() -> dict[str, str]:
    """What figures depend on, by name; to be read before the benchmark is a part of the load itself."""
    facts = {
        "CPU": f"{_cpu_name()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "torch": str(torch.__version__),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "commit": commit_of(Path(__file__).parent),
    }
    if torch.cuda.is_available():
        facts["GPU"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return facts


def commit_of(folder: Path) -> str:
    """Short hash of a checkout's commit, marked where files have changed since."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


Case = Callable[[int], object]
"""What is timed, called with the number of the round."""


def timed_in_turn(
    cases: Mapping[str, Case],
    rounds: int,
    clock: Callable[[], float],
    *,
    seconds: float = math.inf,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds that each case takes in every round.

    In each round all have their turn, so that what else the machine does slows all of them.

    Args:
        cases: What to time, called with the number of the round, from 1.
        rounds: How many count; there is one more before them, to warm up.
        clock: Tells the time in seconds.
        seconds: Begin no round after so many, once three have been counted.
        pause: Seconds to wait before each case, while threads of the one before spin for more work.
    """
    timed = {name: partial(_timed, case, clock) for name, case in cases.items()}
    return _in_turn(timed, rounds, seconds, pause)


def timed_apart(
    makers: Mapping[str, Callable[[], Case]], rounds: int, clock: Callable[[], float], *, seconds: float = math.inf
) -> dict[str, list[float]]:
    """The same, each case in a process of its own: what one does to its process, none of the others has.

    Args:
        makers: What makes each case, there; as pickle takes it.
        rounds: As in :func:`timed_in_turn`.
        clock: As in :func:`timed_in_turn`.
        seconds: As in :func:`timed_in_turn`.

    Raises:
        RuntimeError: If a process has failed; it has said why.
    """
    with ExitStack() as stack:
        elsewhere = {name: stack.enter_context(_elsewhere(name, maker, clock)) for name, maker in makers.items()}
        return _in_turn(elsewhere, rounds, seconds)


def _in_turn(
    timed: Mapping[str, Callable[[int], float]], rounds: int, seconds: float, pause: float = 0.0
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in timed}
    end = time.perf_counter() + seconds
    for number in range(rounds + 1):
        if number > LEAST_ROUNDS and time.perf_counter() > end:
            break
        for name, case in timed.items():
            time.sleep(pause)
            taken = case(number + 1)
            if number:
                times[name].append(taken)
    return times


def _timed(case: Case, clock: Callable[[], float], number: int) -> float:
    began = clock()
    case(number)
    return clock() - began


@contextmanager
def _elsewhere(name: str, maker: Callable[[], Case], clock: Callable[[], float]) -> Iterator[Callable[[int], float]]:
    """A process that times a case when it is told to."""
    spawned = multiprocessing.get_context("spawn")
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=_serve, args=(theirs, maker, clock, torch.get_num_threads()), daemon=True)
    process.start()
    theirs.close()

    def timed(number: int) -> float:
        try:
            ours.send(number)
            taken: float = ours.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise RuntimeError(f"the process of {name} has failed.") from error
        return taken

    try:
        yield timed
    finally:
        ours.close()
        process.join()


def _serve(asked: Connection, maker: Callable[[], Case], clock: Callable[[], float], threads: int) -> None:
    """Time a case until nobody asks any more."""
    torch.set_num_threads(threads)
    case = maker()
    with suppress(EOFError):
        while True:
            asked.send(_timed(case, clock, asked.recv()))
