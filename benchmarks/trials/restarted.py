"""Kill one of two processes that torchrun restarts, and compare the run with one that nobody disturbed.

    python -m benchmarks.trials.restarted [--trials 5] [--seed 0]

Each trial trains a small BigGAN-deep on real digits by two processes under ``--max-restarts``, of which a random one is
killed (SIGKILL) after a random step. The weights, averages and optimizer states of its last checkpoint are compared,
byte for byte, with those of the undisturbed run.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.distributed_runs import torchrun
from gan_blocks.engine.runs.checkpoints import load_latest_checkpoint


def main() -> int:
    """Carry the trials out; the exit status is 1 if a run came back as another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        same = sum(trials(Path(folder), args.trials, args.seed, args.steps))
    print(f"{same} of {args.trials} restarted runs ended with the bytes of an undisturbed one")
    return int(same < args.trials)


def trials(folder: Path, count: int, seed: int, steps: int) -> Iterator[bool]:
    """Carry out and print so many trials; gives for each whether the run ended as the undisturbed one."""
    subprocess.run(torchrun(folder / "undisturbed", 2, steps), check=True, stderr=subprocess.DEVNULL)
    undisturbed = final_files(folder / "undisturbed")
    rng = random.Random(seed)
    for number in range(count):
        run, target = folder / f"killed_{number}", rng.randrange(1, steps)
        command = torchrun(run, 2, steps, "--max-restarts", "3", "--monitor-interval", "0.5")
        launcher = subprocess.Popen([*command, "--log-every", "1"], stderr=subprocess.DEVNULL)
        while last_step(run) < target and launcher.poll() is None:
            time.sleep(0.02)
        workers = children(launcher.pid)
        victim = rng.randrange(len(workers))
        os.kill(workers[victim], signal.SIGKILL)
        status, same = launcher.wait(), final_files(run) == undisturbed
        verdict = "the same bytes" if same else "OTHER BYTES"
        print(f"killed a worker of two after step {target}: status {status}, {verdict}", flush=True)
        yield same and status == 0


def final_files(run: Path) -> dict[str, bytes]:
    """The newest checkpoint's weights, averages and optimizer states."""
    return {path.name: path.read_bytes() for path in load_latest_checkpoint(run / "checkpoints").path.glob("*.saf*")}


def last_step(run: Path) -> int:
    """The newest step in the log, 0 before the first."""
    log = run / "log.jsonl"
    return sum('"loss_d"' in line for line in log.read_text().splitlines()) if log.exists() else 0


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(word) for word in listed.stdout.split()]


if __name__ == "__main__":
    sys.exit(main())
