"""What it costs to train together: two processes that share each step against two that know nothing of each other.

    python -m benchmarks.weak_scaling [--steps N] [--batch B] [--rounds N] [--channels C]

All have one thread and B images of the digits' BigGAN-deep a step. The two kinds take turns, so that whatever else the
machine does is spread over both. Efficiency is the time of a step apart over that of a step together; the share of
collective operations includes waiting for the other process.
"""

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.distributed_runs import free_port
from benchmarks.timing import machine
from gan_blocks.engine import load_images
from gan_blocks.engine.base.parallel.processes import joined_processes
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from recipes import biggan_deep

WARM_UP = 3


def main() -> None:
    """Run all rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", type=int, default=16, help="channel unit of the networks")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"channels {args.channels}, batch {args.batch}, {machine()}\n")
    print("| round | apart, ms a step | together, ms a step | efficiency | share of collectives |")
    print("| --- | --- | --- | --- | --- |")
    efficiencies = []
    for number in range(args.rounds):
        apart, _ = measure(args, together=False)
        joined, collectives = measure(args, together=True)
        efficiencies.append(apart / joined)
        shown = f"{1e3 * apart:.0f} | {1e3 * joined:.0f} | {apart / joined:.2f} | {collectives / joined:.1%}"
        print(f"| {number + 1} | {shown} |", flush=True)
    print(f"\nmedian efficiency {statistics.median(efficiencies):.2f}")


def measure(args: argparse.Namespace, *, together: bool) -> tuple[float, float]:
    """Median seconds of a step, and mean seconds of it in collectives, of two processes at the same time."""
    port, size = free_port(), 2 if together else 1
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as processes:
        working = [processes.submit(work, number % size, size, port, args) for number in range(2)]
        times, collectives = zip(*(each.result() for each in working), strict=True)
    return statistics.median(t for each in times for t in each), statistics.mean(collectives)


def work(rank: int, size: int, port: int, args: argparse.Namespace) -> tuple[list[float], float]:
    """Train one process of ``size``; the seconds of each step, and of its collectives in the mean."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    config = dataclasses.replace(biggan_deep.Config(), batch_size=args.batch * size, channels=args.channels)
    options = RunOptions(device="cpu")
    with joined_processes("cpu"):
        spent = timed_collectives()
        state = build_state(biggan_deep.RECIPE, config, options)
        images = load_images(config.data, resolution=config.resolution, channels=1, num_classes=config.num_classes)
        source = BatchSource(images, biggan_deep.RECIPE.build_prior(config), config, options)
        times = []
        for step in range(1, WARM_UP + args.steps + 1):
            if step == WARM_UP + 1:
                spent.clear()
            began = time.perf_counter()
            biggan_deep.RECIPE.train_step(state, source.step(step), config)
            times.append(time.perf_counter() - began)
        source.close()
    return times[WARM_UP:], sum(spent) / args.steps


def timed_collectives() -> list[float]:
    """Note the seconds of every collective operation in the list that is returned."""
    spent: list[float] = []

    def timed(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = operation(*args, **kwargs)
            spent.append(time.perf_counter() - began)
            return result

        return call

    dist.all_reduce, dist.all_gather = timed(dist.all_reduce), timed(dist.all_gather)
    return spent


if __name__ == "__main__":
    main()
