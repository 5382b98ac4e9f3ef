"""A few of each kind of the trials in ``benchmarks/trials``, of which thousands are run by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TRIALS = {
    "command_lines": (12, "0 of 12 command lines led to a traceback, a hang or no clear end"),
    "damaged": (10, "0 of 10 damaged folders led to a traceback, a hang or a wrong result"),
    "killed": (5, "5 of 5 killed runs ended with the bytes of an undisturbed one"),
}


@pytest.mark.parametrize("name", TRIALS)
def test_a_few_trials_go_well(name: str):
    count, verdict = TRIALS[name]
    command = [sys.executable, "-m", f"benchmarks.trials.{name}", "--trials", str(count), "--seed", "7"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert verdict in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
