"""What R1 at every update costs BigGAN's training, and what is saved by taking the slopes of the loss's own logits.

``python -m benchmarks.steps.r1`` times whole training steps in turn, so that what else the machine does slows all of
them:

* without R1;
* R1 from the logits of the loss, as the recipe has it: real images alone on the kernel with second derivatives;
* R1 from a forward pass of its own beside one of both batches, as :func:`gan_blocks.r1_penalty` would have it.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from benchmarks.steps.training_steps import trainer
from benchmarks.timing import add_clock_option, clock_of, machine, timed_in_turn
from gan_blocks import hinge_discriminator_loss, hinge_generator_loss, r1_penalty
from gan_blocks.engine import (
    FakeBatch,
    PairBatch,
    StepBatches,
    TrainingState,
    score_fake,
    score_pair,
    update_discriminator,
    update_generator,
)
from recipes import biggan

GAMMA = 1.0


def main() -> None:
    """Time all three, print medians and ratios."""
    parser = argparse.ArgumentParser(description="Cost of R1 in the training step of a BigGAN-128.")
    parser.add_argument("--channels", type=int, default=32, help="channel multiplier")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=5, help="measurements, of which the median counts")
    add_clock_option(parser)
    options = parser.parse_args()
    clock = clock_of(options)
    config = replace(biggan.imagenet_128(), channels=options.channels, batch_size=options.batch, discriminator_steps=2)
    with_r1 = replace(config, r1_penalty=GAMMA)
    cases: dict[str, Callable[[int], None]] = {
        "without R1": trainer(biggan.RECIPE, config),
        "R1 from the loss's logits": trainer(biggan.RECIPE, with_r1),
        "R1 from a pass of its own": trainer(biggan.RECIPE, config, step_with_own_pass),
    }
    times = timed_in_turn(cases, options.rounds, clock)
    print(f"channels {options.channels}, batch {options.batch}, {config.discriminator_steps} updates of D, {machine()}")
    for name, measured in times.items():
        ratios = [other / one for other, one in zip(times["R1 from a pass of its own"], measured, strict=True)]
        print(f"{name}: {statistics.median(measured):.2f} s, {statistics.median(ratios):.2f} times as fast as the last")


def step_with_own_pass(state: TrainingState, batches: StepBatches, config: biggan.Config) -> dict[str, Tensor]:
    """The recipe's step, but for R1."""

    def discriminator_loss(part: PairBatch) -> Tensor:
        real_logits, fake_logits = score_pair(state, part)
        loss = hinge_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
        return loss + r1_penalty(partial(state.discriminator, labels=part.real_labels), part.real_images, GAMMA)

    def generator_loss(fake: FakeBatch) -> Tensor:
        return hinge_generator_loss(fake_logits=score_fake(state, fake))

    return {
        "loss_d": update_discriminator(state, batches, config, discriminator_loss),
        "loss_g": update_generator(state, batches, config, generator_loss),
    }


if __name__ == "__main__":
    main()
