"""The benchmarks of speed and memory that belong together: ``make bench``, or ``python -m benchmarks.run [NAME ...]``.

Each measures ways to do one thing in turn and in one process (memory: a process each), writes medians, quartiles and
ratios of rounds, and has its share of the minutes; it begins no round after that, once it has three. A page in
``benchmarks/results`` and the JSON beside it are written anew after each, so that a stop loses nothing.
Where the CPU has no instructions for bfloat16, that is left out.

Tested in ``tests/benchmarks/test_run.py``.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import checkpoint_saving, peak_memory, plain_biggan, sampling_speed, step_costs
from benchmarks.floors import floor_table
from benchmarks.results import Table, page_of, render_table, write_page
from benchmarks.timing import add_clock_option, clock_of, machine
from benchmarks.training_steps import SYSTEMS, TINY_SYSTEMS, System

__all__ = ["BENCHMARKS", "Asked", "main"]

ROUNDS = 25  # at most: most have used up their time before


class Asked(NamedTuple):
    """What a benchmark is told."""

    systems: dict[str, System]
    clock: Callable[[], float]
    rounds: int
    seconds: float

    @property
    def tiny(self) -> bool:
        """Whether only the benchmark itself is tried."""
        return self.systems is TINY_SYSTEMS


def steps(name: str, asked: Asked) -> list[Table]:
    """Training steps over the floors of their convolutions and attention; BigGAN-128 also against plain torch."""
    recipe, config = asked.systems[name]
    others = {}
    if name == "BigGAN-128" and not asked.tiny:
        others["plain torch"] = plain_biggan.trainer(config.channels, batch=config.batch_size, discriminator_steps=1)
    clock, rounds, seconds = asked.clock, asked.rounds, asked.seconds
    return [floor_table(name, recipe, config, clock, rounds=rounds, seconds=seconds, others=others)]


def spectral_norm(asked: Asked) -> list[Table]:
    """Spectral norm: ours, torch's and none, in the steps of BigGAN-128 (most of the time) and the demo."""
    shares = {"BigGAN-128": 0.8, "demo": 0.2}
    return [
        step_costs.spectral_norm_costs(
            name, asked.systems[name], asked.clock, rounds=asked.rounds, seconds=share * asked.seconds
        )
        for name, share in shares.items()
    ]


def classes(asked: Asked) -> list[Table]:
    """A step with 18,000 classes over one with 10."""
    name = "BigGAN-128"
    costs = step_costs.class_costs
    return [costs(name, asked.systems[name], asked.clock, rounds=asked.rounds, seconds=asked.seconds)]


def sampling(asked: Asked) -> list[Table]:
    """Samples of BigGAN-deep at full width in batches of 4 and 16."""
    system = asked.systems["demo"] if asked.tiny else sampling_speed.SYSTEM
    seconds = asked.seconds / len(sampling_speed.BATCHES)
    return [
        sampling_speed.sampling_table(*system, batch, asked.clock, rounds=asked.rounds, seconds=seconds)
        for batch in sampling_speed.BATCHES
    ]


def memory(asked: Asked) -> list[Table]:
    """Peak memory of the step of BigGAN-128."""
    name = "BigGAN-128"
    commands = peak_memory.commands_of(name, tiny=asked.tiny)
    return [peak_memory.memory_table(f"Peak memory of the step of {name}", commands, "plain way")]


def checkpoint(asked: Asked) -> list[Table]:
    """CPU time of saving a checkpoint against torch.save."""
    size = 2**20 if asked.tiny else checkpoint_saving.SIZE
    return [checkpoint_saving.saving_table(size, rounds=min(asked.rounds, 5))]


# What measures, and its share of the time.
BENCHMARKS: dict[str, tuple[Callable[[Asked], list[Table]], float]] = {
    "biggan-128": (partial(steps, "BigGAN-128"), 0.20),
    "biggan-deep-128": (partial(steps, "BigGAN-deep-128"), 0.19),
    "progan-64": (partial(steps, "ProGAN-64"), 0.14),
    "sngan-32": (partial(steps, "SN-GAN-32"), 0.08),
    "demo": (partial(steps, "demo"), 0.05),
    "spectral-norm": (spectral_norm, 0.16),
    "classes": (classes, 0.06),
    "sampling": (sampling, 0.06),
    "memory": (memory, 0.04),
    "checkpoint": (checkpoint, 0.02),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run those that were asked for; the status is 1 if one of them has failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Speed and memory of training and sampling."
    )
    parser.add_argument("names", nargs="*", help=f"which (default: all): {', '.join(BENCHMARKS)}")
    parser.add_argument("--minutes", type=float, default=20.0, help="for all of them; making networks comes on top")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at most so many measurements of each")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--out", type=Path, default=page_of("speed"), help="page of results, without its suffix")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the benchmarks themselves")
    add_clock_option(parser)
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]}; the names are {', '.join(BENCHMARKS)}.")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    systems = TINY_SYSTEMS if options.tiny else SYSTEMS
    command = " ".join(["python -m benchmarks.run", *(sys.argv[1:] if arguments is None else arguments)])
    names = options.names or list(BENCHMARKS)
    whole = sum(BENCHMARKS[name][1] for name in BENCHMARKS if name in names)
    print(machine())
    tables: list[Table] = []
    failed: list[str] = []
    for name in names:
        measure, share = BENCHMARKS[name]
        began = time.perf_counter()
        try:
            found = measure(Asked(systems, clock_of(options), options.rounds, 60 * options.minutes * share / whole))
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        tables += found
        write_page(options.out, "Speed and memory", command, tables)
        print("\n".join(f"\n{render_table(each)}" for each in found))
        print(f"\n({name}: {time.perf_counter() - began:.0f} s in all)", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
