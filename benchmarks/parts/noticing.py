"""What it costs that a spectral norm looks at each read whether its weight has changed.

``python -m benchmarks.parts.noticing`` times one update of D by the hinge loss and Adam, written as a user's own loop
would have it, in turn:

* with vectors that are advanced explicitly and held while the loss is computed, where no layer looks;
* with layers that notice the update by themselves;
* with torch's own spectral norm, which advances at each read.

D is that of BigGAN-128 and that of BigGAN-deep's demo.
"""

import argparse
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from benchmarks.steps.training_steps import with_torch_spectral_norm
from benchmarks.timing import add_clock_option, clock_of, machine, timed_in_turn
from gan_blocks import advance_power_iteration, frozen_power_iteration, hinge_discriminator_loss
from recipes import biggan, biggan_deep


def main() -> None:
    """Time the cases of both networks, print medians and ratios."""
    parser = argparse.ArgumentParser(description="Cost of noticing that a weight has changed.")
    parser.add_argument("--rounds", type=int, default=9, help="measurements, of which the median counts")
    add_clock_option(parser)
    options = parser.parse_args()
    clock = clock_of(options)
    print(machine())
    large = replace(biggan.imagenet_128(), channels=32, batch_size=8)
    for name, recipe, config, updates in (
        ("BigGAN-128, ch 32, batch 8", biggan.RECIPE, large, 1),
        ("BigGAN-deep, mnist5k-32", biggan_deep.RECIPE, biggan_deep.RECIPE.presets["mnist5k-32"](), 10),
    ):
        cases = {
            "advanced explicitly": trainer(recipe, config, updates, explicit=True),
            "noticing": trainer(recipe, config, updates),
            "torch's": trainer(recipe, config, updates, torch_norm=True),
        }
        times = timed_in_turn(cases, options.rounds, clock)
        print(name)
        for case, measured in times.items():
            ratios = [one / first for one, first in zip(measured, times["advanced explicitly"], strict=True)]
            print(f"  {case}: {1e3 * statistics.median(measured) / updates:.1f} ms, {statistics.median(ratios):.3f}")


def trainer(
    recipe: Any, config: Any, updates: int, *, explicit: bool = False, torch_norm: bool = False
) -> Callable[[int], None]:
    """A function that updates a D of its own so many times."""
    torch.manual_seed(0)
    discriminator = recipe.build_discriminator(config).train()
    if torch_norm:
        with_torch_spectral_norm(discriminator)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.0, 0.999))
    images = torch.randn(2 * config.batch_size, config.image_channels, config.resolution, config.resolution)
    labels = torch.arange(2 * config.batch_size) % config.num_classes

    def update() -> None:
        optimizer.zero_grad()
        with frozen_power_iteration(discriminator) if explicit else nullcontext():
            real, fake = discriminator(images, labels).chunk(2)
            hinge_discriminator_loss(real_logits=real, fake_logits=fake).backward()
        optimizer.step()
        if explicit:
            advance_power_iteration(discriminator)

    def train(_round: int) -> None:
        for _ in range(updates):
            update()

    return train


if __name__ == "__main__":
    main()
