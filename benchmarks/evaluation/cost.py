"""What an evaluation with features costs: time with and without the cache, and memory by the number of images.

``python -m benchmarks.evaluation.cost`` compares images of noise, written as .npz files of 32 x 32 pixels in color, by
``gan-blocks evaluate --images A --against B``: twice with one cache, as often as ``--rounds`` says, and then once for
each number of ``--large`` images, one command after the other, for the peak of the resident memory. Time and memory
have a page each in ``benchmarks/results``, with JSON beside it, which is written anew after every number; where the
options of one differ from the defaults, it is written only to ``--out``. Progress is shown.

Time needs a machine that does nothing else; memory does not: ``--images 0`` measures that alone.

Tested in ``tests/benchmarks/evaluation/test_cost.py``.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.command_memory import peak
from benchmarks.results import Ratio, Table, command_of, page_of, render_table, table, unchanged, write_page
from benchmarks.suite import set_threads
from benchmarks.timing import in_one_line, machine_facts

FIRST, SECOND = "first evaluation", "second, with what is known of the real images kept"


def written(path: Path, images: int, seed: int) -> str:
    """Images of ten classes, each a brightness with noise, in the order of no class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % 10)
    pixels = rng.integers(0, 80, (images, 32, 32, 3), dtype=np.uint8)
    pixels += (17 * labels).astype(np.uint8)[:, None, None, None]
    np.savez(path, images=pixels, labels=labels)
    return str(path)


def evaluated(folder: Path, images: int, features: str, threads: Sequence[str]) -> tuple[float, float]:
    """Peak in GiB and seconds of an evaluation of two sets of so many images, with the cache in the folder."""
    sets = [written(folder / f"{which}.npz", images, seed) for seed, which in enumerate("ab")]
    words = ["evaluate", "--images", sets[0], "--against", sets[1], "--features", features]
    return peak(*words, "--cache", str(folder / "cache"), "--out", str(folder / "found.json"), *threads)


def time_table(images: int, features: str, threads: Sequence[str], rounds: int) -> Table:
    """Seconds of a first and of a second evaluation."""
    seconds: dict[str, list[float]] = {FIRST: [], SECOND: []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for case in (FIRST, SECOND):
                seconds[case].append(evaluated(Path(folder), images, features, threads)[1])
    title = f"Time: {images:,} images against {images:,}, {features}"
    return table(title, seconds, [Ratio(SECOND, FIRST)])


def memory_tables(counts: Sequence[int], features: str, threads: Sequence[str]) -> Iterator[Table]:
    """Peak of the resident memory for each number of images so far, with the seconds in a note."""
    memory, notes = {}, []
    for count in counts:
        print(f"\n{count:,} images against {count:,}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            peak_memory, seconds = evaluated(Path(folder), count, features, threads)
        memory[f"{count:,} against {count:,}"] = [peak_memory]
        notes.append(f"{count:,} images against {count:,} took {seconds:,.0f} s, beside whatever else ran.")
        yield table(f"Peak of the resident memory, {features}", memory, unit="GiB", notes=notes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Time and measure, print and write each."""
    parser = argparse.ArgumentParser(description="Time and memory of an evaluation with features.")
    parser.add_argument("--images", type=int, default=10_000, help="of each set, for the time; 0: leave it out")
    parser.add_argument("--rounds", type=int, default=1, help="how often the time is measured")
    parser.add_argument("--large", type=int, nargs="*", default=[50_000, 100_000], help="of each set, for the memory")
    parser.add_argument("--features", default="efflite0-128")
    parser.add_argument("--large-features", default="efflite0-32", help="the memory is the same at any side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder of the pages of results (default: benchmarks/results)")
    options = parser.parse_args(arguments)
    set_threads(options)
    facts = machine_facts()
    print(in_one_line(facts), flush=True)
    threads = ["--threads", str(options.threads)]

    def write(found: Table, theme: str, others: Sequence[str]) -> None:
        print(f"\n{render_table(found)}", flush=True)
        page = page_of(theme) if options.out is None else options.out / page_of(theme).name
        if options.out is not None or unchanged(parser, options, but=others):
            command = command_of("benchmarks.evaluation.cost", arguments)
            write_page(page, "Cost of an evaluation", command, facts, [found])

    if options.images:
        found = time_table(options.images, options.features, threads, options.rounds)
        write(found, "evaluation", others=["large", "large_features"])
    for found in memory_tables(options.large, options.large_features, threads):
        write(found, "evaluation_memory", others=["images", "rounds", "features", "threads"])


if __name__ == "__main__":
    main()
