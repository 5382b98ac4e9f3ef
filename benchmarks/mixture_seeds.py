"""How much faster seeds train side by side than one after the other, on a mixture of Gaussians.

``python -m benchmarks.mixture_seeds`` times steps of N plain GANs as one batched computation, and of the same N alone,
in turn: what else the machine does then slows both. Float32; the median over the rounds counts.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch

from recipes.mixture_of_gaussians import Config, build_replicas, train_step


def main() -> None:
    """Time both, print the medians and the ratio."""
    parser = argparse.ArgumentParser(description="Throughput of batched seeds over seeds one after the other.")
    parser.add_argument("--seeds", type=int, default=6, help="GANs to train")
    parser.add_argument("--rounds", type=int, default=15, help="measurements, of which the median counts")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time: on a busy machine, with one thread")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    batched = [steps(Config(seeds=options.seeds, arms="plain"))]
    alone = [steps(Config(seed=seed, arms="plain")) for seed in range(options.seeds)]
    times: list[list[float]] = [[], []]
    for number in range(options.rounds + 1):
        for trainings, measured in zip((batched, alone), times, strict=True):
            began = clock()
            for step in trainings:
                step()
            if number:  # the first is warm-up
                measured.append(clock() - began)
    ratios = [one_by_one / together for together, one_by_one in zip(*times, strict=True)]
    lowest, *_, highest = statistics.quantiles(ratios, n=4)
    print(
        f"{options.seeds} seeds, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f}\n"
        f"medians for a step of all: batched {1e3 * statistics.median(times[0]):.1f} ms, "
        f"one after the other {1e3 * statistics.median(times[1]):.1f} ms\n"
        f"batched is {statistics.median(ratios):.2f} times as fast (quartiles {lowest:.2f} and {highest:.2f})"
    )


def steps(config: Config) -> Callable[[], object]:
    """A training, one step a call."""
    replicas, schedule, centres = build_replicas(config), config.schedule(), config.centres()
    count = 0

    def step() -> object:
        nonlocal count
        count += 1
        return train_step(replicas, count, schedule, centres)

    return step


if __name__ == "__main__":
    main()
