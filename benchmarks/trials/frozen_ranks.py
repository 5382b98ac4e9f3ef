"""Whether processes that train together end in time, and say why, when one of them freezes or dies.

    python -m benchmarks.trials.frozen_ranks [--trials N] [--seed N]

In each trial two or three processes train a tiny DC-GAN with ``--timeout 5``, launched by torchrun or by the
environment alone. A random one is frozen (SIGSTOP) or killed (SIGKILL) at a random moment, from the rendezvous to the
end of the training. The others must end within 10 seconds more than the timeout, each with status 2 and a line that
names the rank, and no other. torchrun ends them with SIGTERM when it sees one die; for those that this meets before
they train, its report is to name the rank.
"""

import argparse
import importlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.distributed_runs import free_port
from benchmarks.trials.tiny_data import write_data

TIMEOUT, GRACE = 5.0, 10.0
OPTIONS = [
    *("--resolution", "16", "--widths", "6", "4", "--latent-dim", "5", "--batch-size", "12", "--standing-batches", "2"),
    *("--planned-steps", "40", "--threads", "1", "--sample-every", "10", "--log-every", "1", "--checkpoint-every", "4"),
    *("--compare-every", "5", "--timeout", f"{TIMEOUT:g}"),
]
NOT_PLAIN = ("Traceback", "frame #", ".cpp", "torch/csrc", "GLHF", "terminate called", "c10d")


def main() -> int:
    """Carry out all trials; 1 if one of them went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sound = run_trials(args.trials, args.seed)
    print(f"{sound} of {args.trials} ended within timeout + {GRACE:g} s with the rank named")
    return int(sound < args.trials)


def run_trials(count: int, seed: int) -> int:
    """Carry out and print so many trials; how many were sound."""
    rng = random.Random(seed)
    sound = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data.npz")
        usual: dict[tuple[int, bool], float] = {}
        for number in range(count):
            size, by_torchrun = rng.choice([2, 3]), rng.random() < 0.5
            if (size, by_torchrun) not in usual:
                usual[size, by_torchrun] = undisturbed_seconds(folder, size, by_torchrun)
            kind = rng.choice([signal.SIGSTOP, signal.SIGKILL])
            trial = Trial(size, by_torchrun, rng.randrange(size), kind, rng.random() * usual[size, by_torchrun])
            outcome = trial.carry_out(folder / f"trial_{number}")
            while outcome.too_late:  # a quicker run than the undisturbed one
                trial = replace(trial, moment=0.8 * trial.moment)
                outcome = trial.carry_out(folder / f"trial_{number}_{trial.moment}")
            sound += outcome.is_sound
            print(f"{'sound' if outcome.is_sound else 'WRONG'}: {trial}: {outcome}", flush=True)
    return sound


@dataclass(frozen=True)
class Outcome:
    """How the other processes ended."""

    seconds: float
    """From the signal until the last of them had ended."""
    said_after: float
    """From the signal until the last of them had said its last word; Python takes a while to end after that."""
    statuses: dict[int, int]
    """By rank."""
    named: dict[int, str]
    """By rank, what names the one that was frozen or killed: a line of that rank, or torchrun's report."""
    plain: bool
    """Whether nothing but plain lines was said."""

    @property
    def too_late(self) -> bool:
        """Whether the training was over before the signal."""
        return not any(self.statuses.values())

    @property
    def is_sound(self) -> bool:
        """Whether that is what it should be."""
        right = {"its line": 2, "torchrun": -signal.SIGTERM}
        ended = all(right.get(self.named.get(rank, "")) == status for rank, status in self.statuses.items())
        return self.seconds <= TIMEOUT + GRACE and ended and self.plain

    def __str__(self) -> str:
        each = [f"rank {rank} {self.named.get(rank, 'SILENT')} ({self.statuses[rank]})" for rank in self.statuses]
        when = f"ended after {self.seconds:.1f} s (last word {self.said_after:.1f} s)"
        return f"{when}: {', '.join(each)}{'' if self.plain else ', NOT PLAIN'}"


@dataclass(frozen=True)
class Trial:
    """Whom to send which signal, and when."""

    size: int
    by_torchrun: bool
    victim: int
    signal: signal.Signals
    moment: float
    """Seconds after all processes have been started and have imported what they need."""

    def __str__(self) -> str:
        how = "torchrun" if self.by_torchrun else "environment"
        return f"{self.size} processes by {how}, {self.signal.name} to rank {self.victim} after {self.moment:.1f} s"

    def carry_out(self, folder: Path) -> Outcome:
        """Train in this folder, which is made, and disturb it."""
        with Processes(folder, self.size, self.by_torchrun) as processes:
            time.sleep(self.moment)
            with suppress(ProcessLookupError):  # the training is over already
                os.kill(processes.pids[self.victim], self.signal)
            began, clock = time.monotonic(), time.time()
            others = [rank for rank in range(self.size) if rank != self.victim]
            while any(processes.is_alive(rank) for rank in others) and time.monotonic() < began + 4 * (TIMEOUT + GRACE):
                time.sleep(0.05)
            seconds = time.monotonic() - began
            statuses, report = processes.end()
            said = {rank: processes.said(rank) for rank in others}
            named = {rank: "its line" for rank in others if self.is_named(said[rank])}
            if re.search(rf"Root Cause.*?rank\s*: {self.victim} \(", report, re.DOTALL):
                named = dict.fromkeys(others, "torchrun") | named
            plain = not any(word in text for text in said.values() for word in NOT_PLAIN)
            last_word = max((folder / f"said_{rank}.txt").stat().st_mtime for rank in others) - clock
            return Outcome(seconds, last_word, {rank: statuses.get(rank, 0) for rank in others}, named, plain)

    def is_named(self, said: str) -> bool:
        """Whether one line says which rank is missing, and no other one."""
        errors = [line for line in said.splitlines() if "error:" in line]
        return len(errors) == 1 and bool(re.search(rf"no word from rank {self.victim}(?![\d,]| and)", errors[0]))


class Processes:
    """A training by several processes, from when all have imported what they need."""

    def __init__(self, folder: Path, size: int, by_torchrun: bool) -> None:
        self.folder, self.size = folder, size
        folder.mkdir()
        port = free_port()
        worker = ["-m", "benchmarks.trials.frozen_ranks", "rank", str(folder)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.started: list[subprocess.Popen[bytes]] = []
        if by_torchrun:
            launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(size), "--master-port", str(port)]
            self._start([*launcher, *worker], environment)
        for rank in range(0 if by_torchrun else size):
            which = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            self._start(worker, environment | which | where)
        ready = [folder / f"ready_{rank}" for rank in range(size)]
        while not all(path.exists() for path in ready):
            time.sleep(0.02)
        self.pids = [int(path.read_text()) for path in ready]
        self.by_torchrun = by_torchrun

    def _start(self, arguments: list[str], environment: dict[str, str]) -> None:
        with (self.folder / f"launcher_{len(self.started)}.txt").open("wb") as file:
            self.started.append(
                subprocess.Popen([sys.executable, *arguments], env=environment, stdout=file, stderr=file)
            )

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def is_alive(self, rank: int) -> bool:
        """Whether a rank is there; one that has ended may wait for its status to be read."""
        if not self.by_torchrun:
            return self.started[rank].poll() is None
        try:
            os.kill(self.pids[rank], 0)
        except ProcessLookupError:
            return False
        state = Path(f"/proc/{self.pids[rank]}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"

    def end(self) -> tuple[dict[int, int], str]:
        """Kill who is left; the statuses by rank, without those of 0 under torchrun, and what torchrun said."""
        for rank, pid in enumerate(self.pids):
            with suppress(ProcessLookupError):
                if self.is_alive(rank):
                    os.kill(pid, signal.SIGKILL)
        ended = [process.wait() for process in self.started]
        if not self.by_torchrun:
            return dict(enumerate(ended)), ""
        report = (self.folder / "launcher_0.txt").read_text()
        found = re.findall(r"^  rank +: (\d+) .*\n  exitcode +: (-?\d+)", report, re.MULTILINE)
        return {int(rank): int(status) for rank, status in found}, report

    def said(self, rank: int) -> str:
        """All that a rank wrote."""
        return (self.folder / f"said_{rank}.txt").read_text()


def undisturbed_seconds(folder: Path, size: int, by_torchrun: bool) -> float:
    """How long the training takes."""
    with Processes(folder / f"undisturbed_{size}_{by_torchrun}", size, by_torchrun) as processes:
        began = time.monotonic()
        for process in processes.started:
            if process.wait():
                raise RuntimeError(processes.said(0))
        return time.monotonic() - began


def train(folder: Path) -> int:
    """One rank: say that it is there, and train."""
    rank = os.environ["RANK"]
    recipe = importlib.import_module("recipes.dcgan").RECIPE
    importlib.import_module("torch._dynamo")  # as optimizers do, in seconds that are no part of a trial
    said = os.open(folder / f"said_{rank}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    (folder / f"pid_{rank}").write_text(str(os.getpid()))
    (folder / f"pid_{rank}").rename(folder / f"ready_{rank}")
    data = ["--data", f"npz:{folder.parent / 'data.npz'}", "--run-dir", str(folder / "run")]
    status: int = recipe.main([*data, *OPTIONS])
    return status


if __name__ == "__main__":
    sys.exit(train(Path(sys.argv[2])) if sys.argv[1:2] == ["rank"] else main())
