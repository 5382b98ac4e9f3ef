"""What measuring the spectra every 10 steps adds to the training of a BigGAN-128.

``python -m benchmarks.parts.spectrum_monitor`` trains G and D. Of ten pairs of monitors one measures both after each
step, so that each measurement starts from one ten steps old and is compared with the step just before it: what else the
machine does then slows both. The first step and each pair's first, cold, measurement are left out.
"""

import argparse
import statistics

import torch

from benchmarks.steps.plain_biggan import Discriminator, Generator, initialize, train
from benchmarks.timing import add_clock_option, clock_of, machine, spread_of
from gan_blocks import SpectrumMonitor


def main() -> None:
    """Train, measure, print the medians."""
    parser = argparse.ArgumentParser(description="What measuring the spectra adds to a training of BigGAN-128.")
    parser.add_argument("--channels", type=int, default=32, help="channel multiplier")
    parser.add_argument("--batch", type=int, default=8, help="images in a training step")
    parser.add_argument("--every", type=int, default=10, help="steps from one measurement to the next")
    parser.add_argument("--measurements", type=int, default=15, help="warm measurements, of which the median counts")
    add_clock_option(parser)
    options = parser.parse_args()
    clock = clock_of(options)
    generator = torch.Generator().manual_seed(0)
    g, d = Generator(options.channels), Discriminator(options.channels)
    initialize(g, generator)
    initialize(d, generator)
    monitors = [[SpectrumMonitor(model) for model in (g, d)] for _ in range(options.every)]
    steps, measurements = [], []
    training = train(g, d, batch=options.batch)
    for step in range(options.every + options.measurements):
        began = clock()
        next(training)
        trained = clock()
        for monitor in monitors[step % options.every]:
            monitor.measure()
        steps.append(trained - began)
        measurements.append(clock() - trained)
    cold, warm = measurements[1 : options.every], measurements[options.every :]
    ratios = [measured / trained for measured, trained in zip(warm, steps[options.every :], strict=True)]
    share = 100 / options.every
    median, low, high = spread_of(ratios)
    print(
        f"channels {options.channels}, batch {options.batch}, {machine()}\n"
        f"medians: step {statistics.median(steps[1:]):.3f} s, measurement {statistics.median(warm):.3f} s "
        f"(cold {statistics.median(cold):.3f} s)\n"
        f"a measurement every {options.every} steps adds {share * median:.2f} % "
        f"(quartiles {share * low:.2f} and {share * high:.2f})"
    )


if __name__ == "__main__":
    main()
