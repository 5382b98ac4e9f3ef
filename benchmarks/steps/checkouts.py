"""A training step of this checkout of the repository and of another, in turn.

``python -m benchmarks.steps.checkouts FOLDER`` times the demo's step; FOLDER is another checkout, as ``git worktree add
FOLDER COMMIT`` makes one. Each runs in a process of its own and waits while the other has its turn.
``--compile`` also times this checkout with ``--compile``. Tested in ``tests/benchmarks/steps/test_checkouts.py``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from benchmarks.results import Ratio, add_out_option, command_of, page_asked, page_of, render_table, table, write_page
from benchmarks.timing import commit_of, in_one_line, machine_facts, spread_of

__all__ = ["Worker", "main"]

HERE = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("checkout_worker.py")


class Worker:
    """A process that takes steps with the code of a checkout when it is told to.

    Args:
        checkout: Its folder.
        recipe: Module in ``recipes``.
        preset: Of that recipe.
        options: Fields of ``RunOptions``.
    """

    def __init__(self, checkout: Path, recipe: str, preset: str, options: dict[str, object]) -> None:
        # In a folder with nothing in it, and with the checkout first in the path: an installed version is not found.
        environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}
        self.folder = tempfile.TemporaryDirectory()
        words = [sys.executable, str(WORKER), recipe, preset, json.dumps(options)]
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self.folder.name,
        )
        self.checkout = checkout

    def steps(self, count: int) -> list[float]:
        """Seconds of so many steps.

        Raises:
            SystemExit: If the process has failed; it has said why.
        """
        asked, answered = _pipes(self.process)
        try:
            print(count, file=asked, flush=True)
            line = answered.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(f"the steps of {self.checkout} have failed.")
        seconds: list[float] = json.loads(line)
        return seconds

    def close(self) -> None:
        """Let the process end."""
        self.process.communicate()
        self.folder.cleanup()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Time both, print a table and write it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steps.checkouts", description="Training steps of this checkout against another."
    )
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("--recipe", default="biggan_deep", help="module in recipes")
    parser.add_argument("--preset", default="mnist5k-32", help="of the recipe")
    parser.add_argument("--compile", action="store_true", help="also time this checkout with --compile")
    parser.add_argument("--warm-up", type=int, default=5, help="steps that do not count")
    parser.add_argument("--steps", type=int, default=5, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=15, help="turns, of which the median counts")
    add_out_option(parser, page_of("checkouts"))
    options = parser.parse_args(arguments)
    if not (options.other / "recipes").is_dir():
        parser.error(f"{options.other} must be a checkout of this repository, but has no folder recipes.")
    other = options.other.resolve()
    names = {"this": f"this ({commit_of(HERE)})", "other": f"other ({commit_of(other)})"}
    workers = {
        names["this"]: Worker(HERE, options.recipe, options.preset, {}),
        names["other"]: Worker(other, options.recipe, options.preset, {}),
    }
    if options.compile:
        workers["this, compiled"] = Worker(HERE, options.recipe, options.preset, {"compile": True})
    facts = machine_facts()
    print(in_one_line(facts))
    try:
        for worker in workers.values():
            worker.steps(options.warm_up)
        turns: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(options.rounds):
            for name, worker in workers.items():
                turns[name].append(spread_of(worker.steps(options.steps)).median)
    finally:
        for worker in workers.values():
            worker.close()
    ratios = [Ratio(names["other"], name) for name in workers if name != names["other"]]
    found = table(f"Step of {options.recipe}, {options.preset}, by two checkouts", turns, ratios)
    if page := page_asked(parser, options, page_of("checkouts"), but=["other", "compile"]):
        write_page(page, "Two checkouts", command_of("benchmarks.steps.checkouts", arguments), facts, [found])
    print(render_table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
