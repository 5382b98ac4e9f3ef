"""What top-k training costs in an update of G, and whether a second pass of D over the best alone would pay.

``python -m benchmarks.steps.top_k`` times updates of G in turn, so that what else the machine does slows all of them:

* all samples, as in plain training;
* the best half, chosen from the logits of the one pass of D (what the recipes do with one micro-batch);
* the best half, scored by a pass of D without graph and judged by a second one, whose backward pass skips the others.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import add_clock_option, clock_of, machine, timed_in_turn
from gan_blocks import hinge_generator_loss, select_top_k, top_k_mask
from recipes import biggan


def main() -> None:
    """Time all three, print medians and ratios to plain training."""
    parser = argparse.ArgumentParser(description="Cost of top-k training in an update of the G of a BigGAN-128.")
    parser.add_argument("--channels", type=int, default=16, help="channel multiplier")
    parser.add_argument("--batch", type=int, default=8, help="samples in an update")
    parser.add_argument("--rounds", type=int, default=9, help="measurements, of which the median counts")
    add_clock_option(parser)
    options = parser.parse_args()
    clock = clock_of(options)
    random = torch.Generator().manual_seed(0)
    config = replace(biggan.PRESETS["imagenet-128"](), channels=options.channels)
    g, d = biggan.RECIPE.build_generator(config), biggan.RECIPE.build_discriminator(config).requires_grad_(False)
    labels = torch.arange(options.batch)

    def images() -> Tensor:
        made: Tensor = g(torch.randn(options.batch, config.latent_dim, generator=random), labels)
        return made

    def one_pass(k: int) -> Tensor:
        return select_top_k(d(images(), labels), k)

    def two_passes(k: int) -> Tensor:
        made = images()
        with torch.no_grad():
            best = top_k_mask(d(made, labels), k)
        logits: Tensor = d(made[best], labels[best])
        return logits

    half = options.batch // 2

    def update(judge: Callable[[int], Tensor], k: int, _round: int) -> None:
        g.zero_grad()
        hinge_generator_loss(fake_logits=judge(k)).backward()

    cases = {
        "all samples": partial(update, one_pass, options.batch),
        "best half, one pass of D": partial(update, one_pass, half),
        "best half, two passes of D": partial(update, two_passes, half),
    }
    times = timed_in_turn(cases, options.rounds, clock)
    print(f"channels {options.channels}, batch {options.batch}, {machine()}")
    for name, measured in times.items():
        ratios = [one / plain for one, plain in zip(measured, times["all samples"], strict=True)]
        print(f"{name}: {statistics.median(measured):.3f} s, {statistics.median(ratios):.2f} of all samples")


if __name__ == "__main__":
    main()
