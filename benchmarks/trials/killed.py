"""Kill trainings at random moments, start them again, and compare them with one that nobody disturbed.

    python -m benchmarks.trials.killed [--trials 100] [--seed 0]

Each trial trains one of five recipes with a checkpoint at every second step. It is killed (SIGKILL) one to three times,
at moments drawn over the whole time that it takes, and started again by the same command. At the end every file of its
last checkpoint is compared, byte for byte, with that of the undisturbed run.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.trials.children import RECIPES, begin, finish, run_in_child
from benchmarks.trials.tiny_data import write_data

STEPS = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Carry the trials out; the exit status is 1 if a run came back as another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        verdicts = []
        for verdict in trials(Path(folder), args.trials, args.seed):
            print(verdict, flush=True)
            verdicts.append(verdict)
    same = sum(verdict.endswith("the same bytes") for verdict in verdicts)
    print(f"{same} of {len(verdicts)} killed runs ended with the bytes of an undisturbed one")
    return int(same < len(verdicts))


def trials(folder: Path, count: int, seed: int) -> Iterator[str]:
    """Carry out so many trials, the recipes in turn; gives a line for each."""
    rng = random.Random(seed)
    data = write_data(folder / "data.npz")
    undisturbed: dict[str, tuple[dict[str, bytes], float]] = {}
    for number in range(count):
        name = list(RECIPES)[number % len(RECIPES)]
        recipe, options = RECIPES[name]
        args = [*options, "--data", f"npz:{data}", "--steps", str(STEPS), "--checkpoint-every", "2", "--run-dir"]
        if name not in undisturbed:
            began = time.monotonic()
            outcome = run_in_child(recipe.main, [*args, str(folder / name)], folder)
            if outcome.status != 0:
                raise RuntimeError(f"{name} does not train: {outcome.said}")
            undisturbed[name] = (last_files(folder / name), time.monotonic() - began)
        wanted, seconds = undisturbed[name]
        run, output = folder / f"{name}-{number}", folder / "said.txt"
        moments = [rng.uniform(0, seconds) for _ in range(rng.randint(1, 3))]
        for moment in moments:
            child = begin(recipe.main, [*args, str(run)], folder, output)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        last = finish(begin(recipe.main, [*args, str(run)], folder, output), output, timeout=120)
        verdict = last.fault() or ("the same bytes" if last_files(run) == wanted else "OTHER BYTES")
        killed = ", ".join(f"{moment:.2f}" for moment in moments)
        yield f"{number}: {name}, killed after {killed} of {seconds:.2f} s: {verdict}"


def last_files(run: Path) -> dict[str, bytes]:
    """All files of the newest checkpoint."""
    newest = max((run / "checkpoints").glob("step_*"))
    return {path.name: path.read_bytes() for path in sorted(newest.iterdir())}


if __name__ == "__main__":
    sys.exit(main())
