"""What an evaluation with features costs: time with and without the cache, and memory by the number of images.

``python -m benchmarks.evaluation_cost`` compares images of noise, written as .npz files of 32 x 32 pixels in color, by
``gan-blocks evaluate --images A --against B``: twice with one cache, and once each with as many images as ``--large``
names, for the peak of the resident memory.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.command_memory import peak

BARS = {50_000: 2.0, 100_000: 2.5}  # GiB
SECONDS, SHARE = 240, 0.6


def written(path: Path, images: int, seed: int) -> str:
    """Images of ten classes, each a brightness with noise, in the order of no class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % 10)
    pixels = rng.integers(0, 80, (images, 32, 32, 3), dtype=np.uint8)
    pixels += (17 * labels).astype(np.uint8)[:, None, None, None]
    np.savez(path, images=pixels, labels=labels)
    return str(path)


def main() -> None:
    """Time and measure, and print each beside its bar."""
    parser = argparse.ArgumentParser(description="Time and memory of an evaluation with features.")
    parser.add_argument("--images", type=int, default=10_000, help="of each set, for the time")
    parser.add_argument("--large", type=int, nargs="*", default=[50_000, 100_000], help="of each set, for the memory")
    parser.add_argument("--features", default="efflite0-128")
    parser.add_argument("--large-features", default="efflite0-32", help="the memory is the same at any side")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def evaluated(images: int, features: str) -> tuple[float, float]:
            sets = [written(folder / f"{which}.npz", images, seed) for seed, which in enumerate("ab")]
            words = ["evaluate", "--images", sets[0], "--against", sets[1], "--features", features]
            words += ["--cache", str(folder / f"cache-{images}"), "--out", str(folder / "found.json")]
            return peak(*words, "--threads", str(options.threads))

        memory, first = evaluated(options.images, options.features)
        what = f"{options.images:,} against {options.images:,} images, {options.features}, {options.threads} threads"
        print(f"{what}: {first:.0f} s (bar: {SECONDS} s for 10,000), {memory:.2f} GiB", flush=True)
        _, second = evaluated(options.images, options.features)
        print(f"  with real features cached: {second:.0f} s, {second / first:.0%} (bar: {SHARE:.0%})", flush=True)
        for count in options.large:
            memory, seconds = evaluated(count, options.large_features)
            bar = f" (bar: {BARS[count]} GiB)" if count in BARS else ""
            print(
                f"{count:,} against {count:,}, {options.large_features}: {memory:.2f} GiB{bar}, {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
