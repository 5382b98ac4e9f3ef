"""The most memory that a process holds while it trains, each way in a process of its own.

``python -m benchmarks.peak_memory`` takes two steps of BigGAN-128 (ch 32, batch 8) as the recipe does, with the
activations of blocks computed again, in bfloat16, and the plain way (torch's spectral norm, no fused convolutions).
It prints what the process holds at its peak in these steps, and how much of it came after everything was imported;
what building the networks took for a moment, such as their orthogonal start, is not in it.
Tested in ``tests/benchmarks/test_run.py``.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Ratio, Table, render_table, table
from benchmarks.steps.training_steps import SYSTEMS, System, plain_trainer, systems, trainer
from benchmarks.timing import machine
from gan_blocks.engine.base.devices import cpu_has_bf16
from gan_blocks.engine.recipe.options import RunOptions

__all__ = ["WAYS", "commands_of", "memory_table", "peaks", "say_peak"]

STEPS = 2  # with the second, the optimizers have their state from the start

Way = Callable[[System], Callable[[int], object]]
WAYS: dict[str, Way] = {
    "plain way": lambda system: plain_trainer(*system),
    "ours": lambda system: trainer(*system),
    "ours, activations computed again": lambda system: trainer(
        *system, options=RunOptions(checkpoint_activations=True)
    ),
    "ours, bfloat16": lambda system: trainer(*system, options=RunOptions(precision="bf16")),
}


def held() -> tuple[float, float]:
    """MiB that this process holds, and has held at its peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # no Linux; a process that forks starts with the peak of its parent there
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        return peak, peak
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value}
    return kib["VmRSS"] / 2**10, kib["VmHWM"] / 2**10


def forget_peak() -> None:
    """Give back what building has left, and count the peak from here on, where Linux lets one."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def say_peak(make: Callable[[], Callable[[int], Any]]) -> None:
    """Build a step, take it, and print what this process held before and at its peak, for :func:`peaks` to read."""
    before, _ = held()
    step = make()
    forget_peak()
    for number in range(STEPS):
        step(number + 1)
    print(json.dumps({"before": before, "peak": held()[1]}))


def peaks(command: Sequence[str]) -> tuple[float, float]:
    """Peak in MiB, and how much of it came after imports, of a process that ends with :func:`say_peak`."""
    output = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    return found["peak"], found["peak"] - found["before"]


def memory_table(title: str, commands: Mapping[str, Sequence[str]], against: str, *, rounds: int = 1) -> Table:
    """Peaks of several commands in turn, each over that of one of them."""
    whole: dict[str, list[float]] = {name: [] for name in commands}
    after: dict[str, list[float]] = {f"{name}, after imports": [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            peak, own = peaks(command)
            whole[name].append(peak)
            after[f"{name}, after imports"].append(own)
    ratios = [Ratio(name, against) for name in whole if name != against]
    ratios += [Ratio(name, f"{against}, after imports") for name in after if name != f"{against}, after imports"]
    return table(title, whole | after, ratios, unit="MiB")


def commands_of(system: str, *, tiny: bool) -> dict[str, Sequence[str]]:
    """What measures each way."""
    words = ["-m", "benchmarks.peak_memory", "--system", system, *(["--tiny"] if tiny else [])]
    return {name: [*words, "--measure", name] for name in WAYS if cpu_has_bf16() or "bfloat16" not in name}


def main() -> None:
    """Measure all ways in turn, or one in this process."""
    parser = argparse.ArgumentParser(description="Peak memory of training steps.")
    parser.add_argument("--system", choices=SYSTEMS, default="BigGAN-128", help="whose step")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way, of which the median counts")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the benchmark itself")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        system = systems(tiny=options.tiny)[options.system]
        say_peak(lambda: WAYS[options.measure](system))
        return
    print(machine())
    commands = commands_of(options.system, tiny=options.tiny)
    title = f"Peak memory of the step of {options.system}"
    print(render_table(memory_table(title, commands, "plain way", rounds=options.rounds)))


if __name__ == "__main__":
    main()
