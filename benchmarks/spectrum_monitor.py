"""What measuring the spectra every 10 steps adds to the training of a BigGAN-128.

``python -m benchmarks.spectrum_monitor`` trains G and D and measures both between steps, warm after the first time.
"""

import argparse
import os
import statistics
import time

import torch

from benchmarks.plain_biggan import Discriminator, Generator, initialise, train
from gan_blocks import SpectrumMonitor


def main() -> None:
    """Train, measure, print the medians."""
    parser = argparse.ArgumentParser(description="What measuring the spectra adds to a training of BigGAN-128.")
    parser.add_argument("--channels", type=int, default=32, help="channel multiplier")
    parser.add_argument("--batch", type=int, default=8, help="images in a training step")
    parser.add_argument("--steps", type=int, default=12, help="training steps")
    parser.add_argument("--every", type=int, default=10, help="steps from one measurement to the next")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    g, d = Generator(options.channels), Discriminator(options.channels)
    initialise(g, generator)
    initialise(d, generator)
    monitors = [SpectrumMonitor(model) for model in (g, d)]
    steps, measurements = [], []
    steps_taken = train(g, d, batch=options.batch)
    for _ in range(options.steps):
        began = time.perf_counter()
        next(steps_taken)
        trained = time.perf_counter()
        for monitor in monitors:
            monitor.measure()
        steps.append(trained - began)
        measurements.append(time.perf_counter() - trained)
    # The first step and the first, cold, measurement set everything up.
    step, measurement = statistics.median(steps[1:]), statistics.median(measurements[1:])
    print(
        f"channels {options.channels}, batch {options.batch}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n"
        f"step {step:.3f} s, measurement {measurement:.3f} s (first {measurements[0]:.3f} s), "
        f"every {options.every} steps: +{100 * measurement / options.every / step:.2f} %"
    )


if __name__ == "__main__":
    main()
