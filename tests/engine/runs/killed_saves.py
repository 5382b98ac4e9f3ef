"""Kill processes in the middle of saving; run in a process of its own, because it forks.

Prints what a restarted run found after each kill, for tests/engine/runs/test_checkpoint_failures.py to judge.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gan_blocks.engine.runs.checkpoints import list_checkpoints, load_latest_checkpoint, remove_stale_temporaries
from tests.engine.dying import die_before
from tests.engine.runs.saved_checkpoints import save


def restart(folder: Path) -> dict[str, Any]:
    """What a run that starts again in this folder finds there."""
    had_temporaries = any(not path.name.removeprefix("step_").isdigit() for path in folder.iterdir())
    remove_stale_temporaries(folder)
    found = load_latest_checkpoint(folder)
    tensors = [found.tensors["ema"]["gamma"], *found.tensors["optimizer_g"].values()]
    return {
        "step": found.step,
        "values": sorted({*torch.cat([tensor.flatten() for tensor in tensors]).tolist()}),
        "notes": found.notes,
        "had_temporaries": had_temporaries,
        "left": sorted(path.name for path in folder.iterdir()),
    }


def kill_at_random_moments(folder: Path, kills: int) -> list[dict[str, Any]]:
    def train() -> None:
        for step in itertools.count(load_latest_checkpoint(folder).step + 1):
            save(folder, step, step)

    save(folder, 1, 1)
    chance = random.Random(0)
    return [killed(train, folder, seconds=chance.uniform(0, 0.03)) for _ in range(kills)]


def killed(train: Callable[[], None], folder: Path, seconds: float) -> dict[str, Any]:
    before = list_checkpoints(folder)
    child = os.fork()
    if child == 0:
        train()
    while list_checkpoints(folder)[-1:] in ([], before[-1:]):  # however slow the machine is, the child gets somewhere
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return restart(folder)


def die_before_each_system_call(root: Path, step: int) -> list[dict[str, Any]]:
    """Save step 1, then ``step`` in a process that dies before its n-th change to the disk, for every n."""
    found: list[dict[str, Any]] = []
    before = root / "before"
    save(before, 1, 1)
    for count in itertools.count():
        folder = root / str(count)
        shutil.copytree(before, folder)
        child = os.fork()
        if child == 0:
            die_before(count)
            save(folder, step, 2)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found.append({"survived": status == 0, **restart(folder)})
        if status == 0:
            break
    return found


def main(root: Path) -> None:
    torch.set_num_threads(1)
    save(root / "identical", 500, 0.1)
    report = {
        "random": kill_at_random_moments(root / "random", kills=10),
        "next step": die_before_each_system_call(root / "next", step=2),
        "same step": die_before_each_system_call(root / "same", step=1),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
