"""The most memory that a process holds while it trains, each way in a process of its own.

``python -m benchmarks.peak_memory`` takes two steps of BigGAN-128 (ch 32, batch 8) as the recipe does, with the
activations of blocks computed again, in bfloat16, and the plain way (torch's spectral norm, no fused convolutions).
It prints what the process holds at its peak, and how much of it came after everything was imported.
Tested in ``tests/benchmarks/test_run.py``.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Ratio, Table, render_table, table
from benchmarks.timing import fast_bf16, machine
from benchmarks.training_steps import SYSTEMS, TINY_SYSTEMS, System, plain_trainer, trainer
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


def say_peak(make: Callable[[], Callable[[int], Any]]) -> None:
    """Build a step, take it, and print what this process held before and at its peak, for :func:`peaks` to read."""
    before, _ = held()
    step = make()
    for number in range(STEPS):
        step(number + 1)
    print(json.dumps({"before": before, "peak": held()[1]}))


def peaks(command: Sequence[str]) -> tuple[float, float]:
    """Peak in MiB, and how much of it came after imports, of a process that ends with :func:`say_peak`."""
    output = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    return found["peak"], found["peak"] - found["before"]


def memory_table(title: str, commands: dict[str, Sequence[str]], against: str) -> Table:
    """Peaks of several commands, each over that of one of them."""
    whole, after = {}, {}
    for name, command in commands.items():
        peak, own = peaks(command)
        whole[name], after[f"{name}, after imports"] = [peak], [own]
    ratios = [Ratio(name, against) for name in whole if name != against]
    ratios += [Ratio(name, f"{against}, after imports") for name in after if name != f"{against}, after imports"]
    return table(title, whole | after, ratios, unit="MiB")


def commands_of(system: str, *, tiny: bool) -> dict[str, Sequence[str]]:
    """What measures each way."""
    words = ["-m", "benchmarks.peak_memory", "--system", system, *(["--tiny"] if tiny else [])]
    return {name: [*words, "--measure", name] for name in WAYS if fast_bf16() or "bfloat16" not in name}


def main() -> None:
    """Measure all ways in turn, or one in this process."""
    parser = argparse.ArgumentParser(description="Peak memory of training steps.")
    parser.add_argument("--system", choices=SYSTEMS, default="BigGAN-128", help="whose step")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the benchmark itself")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        system = (TINY_SYSTEMS if options.tiny else SYSTEMS)[options.system]
        say_peak(lambda: WAYS[options.measure](system))
        return
    print(machine())
    commands = commands_of(options.system, tiny=options.tiny)
    print(render_table(memory_table(f"Peak memory of the step of {options.system}", commands, "plain way")))


if __name__ == "__main__":
    main()
