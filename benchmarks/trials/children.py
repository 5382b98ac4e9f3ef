"""Commands in forked processes, which have imported already what takes long, and what became of them."""

import argparse
import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch._dynamo  # which optimizers import, in seconds

from gan_blocks.engine import Recipe
from recipes import biggan_deep, dcgan, progan, sngan, wgan_gp

plt.switch_backend("agg")

__all__ = ["RECIPES", "Command", "Outcome", "begin", "finish", "report", "run_in_child"]

Command = Callable[[Sequence[str]], int]

_SHARED = ["--batch-size", "8", "--standing-batches", "2", "--sample-every", "0", "--log-every", "1", "--threads", "1"]
_PLAIN = ["--resolution", "16", "--widths", "6", "4", "--latent-dim", "5", "--ema-start", "2", "--planned-steps", "12"]
_OF_CLASSES = ["--num-classes", "3", "--channels", "8", "--ema-start", "2", "--planned-steps", "12"]
_DEEP = ["--resolution", "16", "--latent-dim", "6", "--embedding-dim", "5", "--attention-resolution", "8"]
_SNGAN = [
    "--image-channels",
    "1",
    "--generator-widths",
    "1",
    "1",
    "1",
    "1",
    "--discriminator-widths",
    "1",
    "1",
    "1",
    "1",
]

RECIPES: dict[str, tuple[Recipe[Any], list[str]]] = {
    "dcgan": (dcgan.RECIPE, [*_SHARED, *_PLAIN]),
    "wgan_gp": (wgan_gp.RECIPE, [*_SHARED, *_PLAIN]),
    "sngan": (sngan.RECIPE, [*_SHARED, *_OF_CLASSES, *_SNGAN]),
    "biggan_deep": (
        biggan_deep.RECIPE,
        [*_SHARED, *_OF_CLASSES, *_DEEP, "--generator-widths", "1", "1", "1", "--discriminator-widths", "1", "1", "1"],
    ),
    "progan": (
        progan.RECIPE,
        [
            *("--resolution", "16", "--widths", "6", "5", "4", "--latent-dim", "6", "--batch-sizes", "8", "8", "8"),
            *("--stabilize-images", "32", "--fade-images", "32", "--sample-every", "0", "--log-every", "1"),
            *("--threads", "1", "--standing-batches", "2"),
        ],
    ),
}
"""Five recipes with the options of a network so small that a step takes milliseconds."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: Its exit status, negative for a signal; None where it did not end in time and was killed.
        said: What it wrote to standard output and error.
    """

    status: int | None
    said: str

    def fault(self) -> str | None:
        """What no command must do, in a few words; None where it did nothing of that kind."""
        if self.status is None:
            return "hangs"
        if "Traceback (most recent call last)" in self.said:
            return f"traceback: {self.said.strip().splitlines()[-1][:200]}"
        if self.status < 0:
            return f"ended by signal {-self.status}"
        if self.status == 2 and "error: " not in self.said:
            return "status 2 without an error"
        if self.status == 2 and any(map(_is_unlike_a_sentence, self.said.splitlines()[-1:])):
            return f"its last line is no sentence: {self.said.splitlines()[-1][:200]!r}"
        return None if self.status in (0, 2) else f"status {self.status}"


def _is_unlike_a_sentence(line: str) -> bool:
    return "error: " not in line or len(line) > 2000 or not line.isprintable()


Trials = Callable[[Path, int, int], Iterator[tuple[str, int | None, str | None]]]
"""Carries out so many trials in a folder, by a seed; gives what was done, the status, and what is wrong with it."""


def report(trials: Trials, argv: Sequence[str] | None, *, about: str | None, count: int, verdict: str) -> int:
    """The body of a script of trials: carry them out, name the faults, sum up; the exit status is 1 if there are any.

    Args:
        trials: What to carry out.
        argv: The command line.
        about: What ``--help`` says.
        count: How many there are by default.
        verdict: End of the last line, after the number of faults; ``{count}`` is how many trials there were.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="a line for each trial, not just for faults")
    args = parser.parse_args(argv)
    faults, ends = 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for line, status, fault in trials(Path(folder), args.trials, args.seed):
            ends[str(status)] += 1
            faults += fault is not None
            if fault is not None or args.verbose:
                print(f"{line!r}: {fault or status}", flush=True)
    counts = ", ".join(f"{number} ended with {status}" for status, number in sorted(ends.items()))
    print(f"{faults} of {verdict.format(count=args.trials)} ({counts})")
    return int(faults > 0)


def begin(command: Command, args: Sequence[str], folder: Path, output: Path, *, memory: int = 8 * 2**30) -> int:
    """Start a command in a child, with ``folder`` as its working directory; returns the process's number."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with output.open("wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace")  # noqa: SIM115
        torch.set_num_threads(1)
        status = _status_of(command, args)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _status_of(command: Command, args: Sequence[str]) -> int:
    try:
        return command(list(args))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def finish(child: int, output: Path, *, timeout: float) -> Outcome:
    """Wait for a child, and kill it if it does not end in time."""
    deadline = time.monotonic() + timeout
    while True:
        found, code = os.waitpid(child, os.WNOHANG)
        if found:
            return Outcome(os.waitstatus_to_exitcode(code), _read(output))
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Outcome(None, _read(output))
        time.sleep(0.01)


def run_in_child(command: Command, args: Sequence[str], folder: Path, *, timeout: float = 60.0) -> Outcome:
    """Start a command and wait for it."""
    output = folder / "said.txt"
    return finish(begin(command, args, folder, output), output, timeout=timeout)


def _read(output: Path) -> str:
    return output.read_bytes()[-20_000:].decode(errors="backslashreplace") if output.exists() else ""
