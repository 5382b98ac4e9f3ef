"""Published code against ours: ``make bench-peers PEERS=FOLDER``, or ``python -m benchmarks.peers FOLDER [NAME ...]``.

FOLDER holds checkouts under the names that cloning gives them: ``BigGAN-PyTorch`` (ajbrock), ``pytorch_GAN_zoo``
(facebookresearch; its ProGAN), ``pytorch-pretrained-BigGAN`` (huggingface) and ``mimicry`` (kwotsin; its SN-GAN). Their
code takes its step in turn with ours, each in a process of its own, at the same sizes, in float32; ours in bfloat16 too
where the CPU has instructions for it. What is not there is named and left out; an error, if it was asked for by name.

Tested in ``tests/benchmarks/test_peers.py``.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.peak_memory import commands_of, memory_table, say_peak
from benchmarks.peers import steps
from benchmarks.peers.folders import folder_of
from benchmarks.results import Ratio, Table, command_of, page_asked, page_of, table
from benchmarks.sampling_speed import BATCHES, SYSTEM, sampling_table
from benchmarks.steps.training_steps import SYSTEMS, trainer
from benchmarks.suite import Benchmark, Turn, add_options, check_names, measure_all, set_threads
from benchmarks.timing import Case, timed_apart
from gan_blocks.engine.base.devices import cpu_has_bf16
from gan_blocks.engine.recipe.options import RunOptions

__all__ = ["main"]

Peer = Callable[[Path], Case]
Comparison = Callable[[Path, Turn], list[Table]]


def training(system: str, makers: Mapping[str, Peer], peers: Path, turn: Turn) -> list[Table]:
    """A training step of ours in float32 and bfloat16 in turn with peers'."""
    recipe, config = SYSTEMS[system]
    cases: dict[str, Callable[[], Case]] = {name: partial(make, peers) for name, make in makers.items()}
    cases["ours, float32"] = partial(trainer, recipe, config)
    if cpu_has_bf16():
        cases["ours, bfloat16"] = partial(trainer, recipe, config, options=RunOptions(precision="bf16"))
    measured = timed_apart(cases, turn.rounds, turn.clock, seconds=turn.seconds)
    ratios = [Ratio(peer, ours) for peer in makers for ours in ("ours, float32", "ours, bfloat16")]
    return [table(f"Training step of {system}, batch {config.batch_size}", measured, ratios)]


def sampling(peers: Path, turn: Turn) -> list[Table]:
    """Samples of BigGAN-deep at 128x128 and full width."""
    name, part = "pytorch-pretrained-BigGAN", turn.part(1 / len(BATCHES))
    return [
        sampling_table(*SYSTEM, batch, part, others={name: partial(steps.pretrained_biggan, peers, batch)})
        for batch in BATCHES
    ]


def memory(peers: Path, turn: Turn) -> list[Table]:
    """Peak memory of the BigGAN-128 step."""
    commands: dict[str, Sequence[str]] = {
        "BigGAN-PyTorch": ["-m", "benchmarks.peers", str(peers), "--measure-memory"],
        **commands_of("BigGAN-128", tiny=False),
    }
    title = "Peak memory of the step of BigGAN-128"
    return [memory_table(title, commands, "BigGAN-PyTorch", rounds=min(turn.rounds, 3))]


def _biggan(system: str) -> tuple[str, Comparison, float]:
    full, deep = system != "BigGAN-128", "deep" in system
    peer = partial(steps.biggan_pytorch, config=SYSTEMS[system][1], deep=deep, full=full)
    return "BigGAN-PyTorch", partial(training, system, {"BigGAN-PyTorch": peer}), 1.0


_SNGAN: dict[str, Peer] = {
    "mimicry, cGAN-PD": partial(steps.mimicry, config=SYSTEMS["SN-GAN-32"][1], conditional=True),
    "mimicry, SN-GAN without classes": partial(steps.mimicry, config=SYSTEMS["SN-GAN-32"][1], conditional=False),
}
_PROGAN: dict[str, Peer] = {"pytorch_GAN_zoo": partial(steps.gan_zoo, config=SYSTEMS["ProGAN-64"][1])}

# The folder that each needs, what measures, and its share of the time.
COMPARISONS: dict[str, tuple[str, Comparison, float]] = {
    "biggan-128": _biggan("BigGAN-128"),
    "biggan-128-full": _biggan("BigGAN-128, 2 D steps, ortho"),
    "biggan-deep-128": _biggan("BigGAN-deep-128"),
    "progan-64": ("pytorch_GAN_zoo", partial(training, "ProGAN-64", _PROGAN), 0.6),
    "sngan-32": ("mimicry", partial(training, "SN-GAN-32", _SNGAN), 0.5),
    "sampling": ("pytorch-pretrained-BigGAN", sampling, 0.5),
    "memory": ("BigGAN-PyTorch", memory, 0.1),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what there are peers for; the status is 1 if a comparison has failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Published code against ours.")
    parser.add_argument("peers", type=Path, help="folder of checkouts of published code")
    add_options(parser, list(COMPARISONS), page=page_of("peers"), minutes=25.0)
    parser.add_argument("--measure-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    check_names(parser, options.names, list(COMPARISONS))
    set_threads(options)
    peers = options.peers.resolve()
    if options.measure_memory:
        config = SYSTEMS["BigGAN-128"][1]
        say_peak(lambda: steps.biggan_pytorch(peers, config, deep=False, full=False))
        return 0
    asked, missing = {}, {}
    for name in options.names or COMPARISONS:
        folder, compare, share = COMPARISONS[name]
        try:
            folder_of(peers, folder)
            asked[name] = Benchmark(partial(compare, peers), share)
        except FileNotFoundError as error:
            missing[str(error)] = name
    if missing and (options.names or not asked):
        parser.error(next(iter(missing)))
    for message in missing:
        print(message)
    # Where some are missing, these are not all.
    page = options.out if missing else page_asked(parser, options, page_of("peers"), but=["peers"])
    command = command_of("benchmarks.peers", arguments)
    return measure_all(asked, options, page=page, title="Published code", command=command)


if __name__ == "__main__":
    raise SystemExit(main())
