"""How much faster seeds train side by side than one after the other, on a mixture of Gaussians.

``python -m benchmarks.steps.mixture_seeds`` times 60 steps of N plain GANs as the recipe takes them, side by side; and
of the same N one after the other, with all threads inside each, of torch's own layers and of the recipe's. All in turn:
what else the machine does then slows each. Float32; the median over the rounds counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.timing import machine, spread_of, timed_in_turn
from gan_blocks.engine.base import worker_pool
from gan_blocks.engine.base.parallel.workers import Map
from recipes.mixture_of_gaussians import Config, build_gans, train_steps

STEPS = 60


def main() -> None:
    """Time each way, print the medians and the ratios."""
    parser = argparse.ArgumentParser(description="How much faster seeds train side by side than one after the other.")
    parser.add_argument("--seeds", type=int, default=6, help="GANs to train")
    parser.add_argument("--rounds", type=int, default=15, help="measurements, of which the median counts")
    options = parser.parse_args()
    config, threads = Config(seeds=options.seeds, arms="plain"), torch.get_num_threads()
    workers = min(threads, options.seeds)
    with worker_pool(workers, threads=threads // workers) as processes, worker_pool(1, threads=threads) as here:
        ways = {
            "side by side": Training(config, processes),
            "one after the other, torch's layers": Training(config, here, nn.Sequential.forward),
            "one after the other, the recipe's layers": Training(config, here),
        }
        cases = {way: training.advance for way, training in ways.items()}
        times = timed_in_turn(cases, options.rounds, time.perf_counter, pause=0.5)
    report(times, options.seeds)


def report(times: dict[str, list[float]], seeds: int) -> None:
    """Print the medians and the ratios."""
    fastest = times["side by side"]
    print(
        f"{seeds} seeds, {machine()}\n\n"
        "| a step of all seeds | median, ms | side by side is so many times as fast (quartiles) |\n| --- | --- | --- |"
    )
    for way, measured in times.items():
        ratios = [slow / fast for slow, fast in zip(measured, fastest, strict=True)]
        median, low, high = spread_of(ratios)
        print(f"| {way} | {1e3 * statistics.median(measured) / STEPS:.1f} | {median:.2f} ({low:.2f}, {high:.2f}) |")


class Training:
    """GANs that take steps, with networks that compute by a function of their own if one is given."""

    def __init__(
        self, config: Config, apply: Map, forward: Callable[[nn.Sequential, Tensor], Tensor] | None = None
    ) -> None:
        self.config, self.apply, self.step = config, apply, 0
        self.gans = build_gans(config)
        for gan in self.gans:
            for network in (gan.generator, gan.discriminator):
                if forward is not None:
                    network.forward = partial(forward, network)  # type: ignore[method-assign]

    def advance(self, _round: int) -> None:
        """Train each GAN by a few steps."""
        first, self.step = self.step + 1, self.step + STEPS
        work = partial(train_steps, config=self.config, first=first, last=self.step)
        self.gans = [gan for gan, _ in self.apply(work, self.gans)]


if __name__ == "__main__":
    main()
