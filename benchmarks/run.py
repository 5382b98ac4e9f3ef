"""The benchmarks of speed and memory that belong together: ``make bench``, or ``python -m benchmarks.run [NAME ...]``.

Each measures ways to do one thing in turn and in one process (memory: a process each), writes medians, quartiles and
ratios of rounds, and has its share of the minutes; it begins no round after that, once it has three. A page in
``benchmarks/results`` and the JSON beside it are written anew after each, so that a stop loses nothing.
Where the CPU has no instructions for bfloat16, that is left out.

Tested in ``tests/benchmarks/test_run.py``.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks import checkpoint_saving, peak_memory, plain_biggan, sampling_speed, step_costs
from benchmarks.floors import floor_table
from benchmarks.results import Table, page_of
from benchmarks.suite import Benchmark, Turn, add_options, check_names, measure_all, set_threads
from benchmarks.training_steps import SYSTEMS, TINY_SYSTEMS, System

__all__ = ["benchmarks_of", "main"]

Systems = Mapping[str, System]


def steps(systems: Systems, name: str, turn: Turn) -> list[Table]:
    """Training steps over the floors of their convolutions and attention; BigGAN-128 also against plain torch."""
    recipe, config = systems[name]
    others = {}
    if name == "BigGAN-128" and systems is SYSTEMS:
        others["plain torch"] = plain_biggan.trainer(config.channels, batch=config.batch_size, discriminator_steps=1)
    return [floor_table(name, recipe, config, turn, others=others)]


def spectral_norm(systems: Systems, turn: Turn) -> list[Table]:
    """Spectral norm: ours, torch's and none, in the steps of BigGAN-128 (most of the time) and the demo."""
    shares = {"BigGAN-128": 0.8, "demo": 0.2}
    return [step_costs.spectral_norm_costs(name, systems[name], turn.part(share)) for name, share in shares.items()]


def classes(systems: Systems, turn: Turn) -> list[Table]:
    """A step with 18,000 classes over one with 10."""
    name = "BigGAN-128"
    return [step_costs.class_costs(name, systems[name], turn)]


def sampling(systems: Systems, turn: Turn) -> list[Table]:
    """Samples of BigGAN-deep at full width in batches of 4 and 16."""
    system: System = sampling_speed.SYSTEM if systems is SYSTEMS else systems["demo"]
    part = turn.part(1 / len(sampling_speed.BATCHES))
    return [sampling_speed.sampling_table(*system, batch, part) for batch in sampling_speed.BATCHES]


def memory(systems: Systems, _turn: Turn) -> list[Table]:
    """Peak memory of the step of BigGAN-128."""
    name = "BigGAN-128"
    commands = peak_memory.commands_of(name, tiny=systems is TINY_SYSTEMS)
    return [peak_memory.memory_table(f"Peak memory of the step of {name}", commands, "plain way")]


def checkpoint(systems: Systems, turn: Turn) -> list[Table]:
    """CPU time of saving a checkpoint against torch.save."""
    size = checkpoint_saving.SIZE if systems is SYSTEMS else 2**20
    return [checkpoint_saving.saving_table(size, rounds=min(turn.rounds, 5))]


def benchmarks_of(systems: Systems) -> dict[str, Benchmark]:
    """All of them, by the names of the command line."""
    return {
        "biggan-128": Benchmark(partial(steps, systems, "BigGAN-128"), 0.20),
        "biggan-deep-128": Benchmark(partial(steps, systems, "BigGAN-deep-128"), 0.19),
        "progan-64": Benchmark(partial(steps, systems, "ProGAN-64"), 0.14),
        "sngan-32": Benchmark(partial(steps, systems, "SN-GAN-32"), 0.10),
        "demo": Benchmark(partial(steps, systems, "demo"), 0.05),
        "spectral-norm": Benchmark(partial(spectral_norm, systems), 0.16),
        "classes": Benchmark(partial(classes, systems), 0.06),
        "sampling": Benchmark(partial(sampling, systems), 0.06),
        "memory": Benchmark(partial(memory, systems), 0.02),
        "checkpoint": Benchmark(partial(checkpoint, systems), 0.02),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run those that were asked for; the status is 1 if one of them has failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Speed and memory of training and sampling."
    )
    add_options(parser, list(benchmarks_of(SYSTEMS)), theme="speed", minutes=20.0)
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the benchmarks themselves")
    options = parser.parse_args(arguments)
    benchmarks = benchmarks_of(TINY_SYSTEMS if options.tiny else SYSTEMS)
    check_names(parser, options.names, list(benchmarks))
    set_threads(options)
    asked = {name: benchmark for name, benchmark in benchmarks.items() if name in options.names or not options.names}
    tiny = ["--tiny"] if options.tiny else []
    command = " ".join(["python -m benchmarks.run", *tiny, *options.names] if options.names or tiny else ["make bench"])
    theme = "speed_tiny" if options.tiny else "speed"  # small networks never take the page of the real ones
    page = None if options.names else page_of(theme)
    return measure_all(asked, options, page=page, title="Speed and memory", command=command)


if __name__ == "__main__":
    raise SystemExit(main())
