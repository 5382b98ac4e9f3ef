"""What growing saves: the time of a ProGAN's training beside full resolution from the start (section 6.2 of the paper).

``python -m benchmarks.steps.growing`` times training steps of one pair of networks at every phase of its growth, each
time in turn with steps at full resolution, so that what else the machine does slows both alike. It prints medians, and
the ratio of the times that two trainings of equally many images take: by the time the network is fully grown, and after
12 million images, the length of a later version of the published code (the paper gives none).
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmarks.steps.training_steps import trainer
from benchmarks.timing import add_clock_option, clock_of, machine, spread_of, timed_in_turn
from recipes import progan

WIDTHS = (128, 128, 64, 32, 16, 8)  # a quarter of those of Appendix A.2, so that a step takes a second or so on a CPU
PHASE_IMAGES = 800_000  # Appendix A, below 1024x1024
TOTAL_IMAGES = 12_000_000


def main() -> None:
    """Time both, print a table and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=64, help="of the full networks")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=3, help="measurements at each phase, of which the median counts")
    add_clock_option(parser)
    options = parser.parse_args()
    clock = clock_of(options)
    widths = WIDTHS[: options.resolution.bit_length() - 2]
    config = replace(
        progan.table1_g(),
        resolution=options.resolution,
        widths=widths,
        batch_size=options.batch,
        batch_sizes=(),
        stabilize_images=PHASE_IMAGES,
        fade_images=PHASE_IMAGES,
    )
    # A step of either, in the middle of each phase of growth: at full resolution all phases are alike.
    configs = {"growing": config, "full": replace(config, initial_resolution=options.resolution)}
    trainers = {name: trainer(progan.RECIPE, each) for name, each in configs.items()}
    print(f"{options.resolution}x{options.resolution}, batch {options.batch}, {machine()}")
    seconds: list[float] = []
    at_full: list[float] = []
    for phase in range(2 * len(widths) - 1):
        step = round((phase + 0.5) * PHASE_IMAGES / options.batch)
        times = timed_in_turn(
            {name: partial(_train_at, train, step) for name, train in trainers.items()}, options.rounds, clock
        )
        seconds.append(statistics.median(times["growing"]))
        at_full += times["full"]
        position = config.position(step)
        print(
            f"{position.resolution}x{position.resolution}, alpha {position.alpha:.2f}: {seconds[-1]:.3f} s a step",
            flush=True,
        )
    every, low, high = spread_of(at_full)
    print(f"full resolution from the start: {every:.3f} s a step (quartiles {low:.3f}, {high:.3f})")
    grown = len(seconds) * PHASE_IMAGES
    for images in (grown, TOTAL_IMAGES):
        rest = (images - grown) / PHASE_IMAGES
        ratio = every * images / PHASE_IMAGES / (sum(seconds) + rest * seconds[-1])
        full_rate = options.batch / every
        print(
            f"{images / 1e6:.1f}M images: growing {ratio * full_rate:.2f} images/s, "
            f"full resolution {full_rate:.2f}; ratio {ratio:.2f}"
        )


def _train_at(train: Callable[[int], None], step: int, _round: int) -> None:
    train(step)


if __name__ == "__main__":
    main()
