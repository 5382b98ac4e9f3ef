"""How the benchmarks time: by which clock, in turn, and what they say of the machine."""

import argparse
import os
import time
from collections.abc import Callable, Mapping

import torch

__all__ = ["add_clock_option", "clock_of", "machine", "timed_in_turn"]


def add_clock_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--cpu-time``, which :func:`clock_of` reads."""
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time: on a busy machine, with one thread")


def clock_of(options: argparse.Namespace) -> Callable[[], float]:
    """Seconds by the clock that was asked for."""
    return time.process_time if options.cpu_time else time.perf_counter


def machine() -> str:
    """What figures depend on beside the code."""
    return f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"


def timed_in_turn(
    cases: Mapping[str, Callable[[int], None]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds that each case takes in every round.

    In each round all have their turn, so that what else the machine does slows all of them.

    Args:
        cases: What to time, called with the number of the round, from 1.
        rounds: How many count; there is one more before them, to warm up.
        clock: Tells the time in seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            began = clock()
            case(number + 1)
            if number:
                times[name].append(clock() - began)
    return times
