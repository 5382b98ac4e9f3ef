"""How the benchmarks time: by which clock, in turn, and what they say of the machine."""

import argparse
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = [
    "Spread",
    "add_clock_option",
    "clock_of",
    "commit_of",
    "fast_bf16",
    "machine",
    "machine_facts",
    "spread_of",
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
    """What figures depend on beside the code."""
    return f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"


def machine_facts() -> dict[str, str]:
    """The same and what it runs on, by name, for a page of results."""
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


def fast_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16; without them it is many times slower than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.backends.cpu.get_cpu_capability() != "AVX2"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def timed_in_turn(
    cases: Mapping[str, Callable[[int], object]],
    rounds: int,
    clock: Callable[[], float],
    *,
    seconds: float = math.inf,
) -> dict[str, list[float]]:
    """Seconds that each case takes in every round.

    In each round all have their turn, so that what else the machine does slows all of them.

    Args:
        cases: What to time, called with the number of the round, from 1.
        rounds: How many count; there is one more before them, to warm up.
        clock: Tells the time in seconds.
        seconds: Begin no round after so many, once three have been counted.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    end = time.perf_counter() + seconds
    for number in range(rounds + 1):
        if number > LEAST_ROUNDS and time.perf_counter() > end:
            break
        for name, case in cases.items():
            began = clock()
            case(number + 1)
            if number:
                times[name].append(clock() - began)
    return times
