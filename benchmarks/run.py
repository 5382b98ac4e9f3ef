"""The benchmarks of speed and memory that belong together: ``make bench``, or ``python -m benchmarks.run [NAME ...]``.

Each measures ways to do one thing in turn and in one process (memory: a process each), writes medians, quartiles and
ratios of rounds, and has its share of the minutes; it begins no round after that, once it has three. A page in
``benchmarks/results`` and the JSON beside it are written anew after each, so that a stop loses nothing.
Where the CPU has no instructions for bfloat16, that is left out.

Tested in ``tests/benchmarks/test_run.py``.
"""

import argparse
from collections.abc import Sequence
from functools import partial

from benchmarks import checkpoint_saving, peak_memory, sampling_speed
from benchmarks.results import Table, command_of, page_asked, page_of
from benchmarks.steps import costs, plain_biggan
from benchmarks.steps.floors import floor_table
from benchmarks.steps.training_steps import System, systems
from benchmarks.suite import Benchmark, Turn, add_options, check_names, measure_all, set_threads

__all__ = ["benchmarks_of", "main"]


def steps(tiny: bool, name: str, turn: Turn) -> list[Table]:
    """Training steps over the floors of their convolutions and attention; BigGAN-128 also against plain torch."""
    recipe, config = systems(tiny=tiny)[name]
    others = {}
    if name == "BigGAN-128" and not tiny:
        others["plain torch"] = plain_biggan.trainer(config.channels, batch=config.batch_size, discriminator_steps=1)
    return [floor_table(name, recipe, config, turn, others=others)]


def spectral_norm(tiny: bool, turn: Turn) -> list[Table]:
    """Spectral norm: ours, torch's and none, in the steps of BigGAN-128 (most of the time) and the demo."""
    of, shares = systems(tiny=tiny), {"BigGAN-128": 0.8, "demo": 0.2}
    return [costs.spectral_norm_costs(name, of[name], turn.part(share)) for name, share in shares.items()]


def classes(tiny: bool, turn: Turn) -> list[Table]:
    """A step with 18,000 classes over one with 10."""
    name = "BigGAN-128"
    return [costs.class_costs(name, systems(tiny=tiny)[name], turn)]


def sampling(tiny: bool, turn: Turn) -> list[Table]:
    """Samples of BigGAN-deep at full width in batches of 4 and 16."""
    system: System = systems(tiny=True)["demo"] if tiny else sampling_speed.SYSTEM
    part = turn.part(1 / len(sampling_speed.BATCHES))
    return [sampling_speed.sampling_table(*system, batch, part) for batch in sampling_speed.BATCHES]


def memory(tiny: bool, _turn: Turn) -> list[Table]:
    """Peak memory of the step of BigGAN-128."""
    name = "BigGAN-128"
    commands = peak_memory.commands_of(name, tiny=tiny)
    return [peak_memory.memory_table(f"Peak memory of the step of {name}", commands, "plain way")]


def checkpoint(tiny: bool, turn: Turn) -> list[Table]:
    """CPU time of saving a checkpoint against torch.save."""
    size = 2**20 if tiny else checkpoint_saving.SIZE
    return [checkpoint_saving.saving_table(size, rounds=min(turn.rounds, 5))]


def benchmarks_of(*, tiny: bool) -> dict[str, Benchmark]:
    """All of them, by the names of the command line."""
    return {
        "biggan-128": Benchmark(partial(steps, tiny, "BigGAN-128"), 0.20),
        "biggan-deep-128": Benchmark(partial(steps, tiny, "BigGAN-deep-128"), 0.19),
        "progan-64": Benchmark(partial(steps, tiny, "ProGAN-64"), 0.14),
        "sngan-32": Benchmark(partial(steps, tiny, "SN-GAN-32"), 0.10),
        "demo": Benchmark(partial(steps, tiny, "demo"), 0.05),
        "spectral-norm": Benchmark(partial(spectral_norm, tiny), 0.16),
        "classes": Benchmark(partial(classes, tiny), 0.06),
        "sampling": Benchmark(partial(sampling, tiny), 0.06),
        "memory": Benchmark(partial(memory, tiny), 0.02),
        "checkpoint": Benchmark(partial(checkpoint, tiny), 0.02),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run those that were asked for; the status is 1 if one of them has failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Speed and memory of training and sampling."
    )
    add_options(parser, list(benchmarks_of(tiny=False)), page=page_of("speed"), minutes=20.0)
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the benchmarks themselves")
    options = parser.parse_args(arguments)
    benchmarks = benchmarks_of(tiny=options.tiny)
    check_names(parser, options.names, list(benchmarks))
    set_threads(options)
    asked = {name: benchmark for name, benchmark in benchmarks.items() if name in options.names or not options.names}
    page = page_asked(parser, options, page_of("speed"))
    command = command_of("benchmarks.run", arguments)
    return measure_all(asked, options, page=page, title="Speed and memory", command=command)


if __name__ == "__main__":
    raise SystemExit(main())
