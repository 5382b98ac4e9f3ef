"""A few of each kind of the trials in ``benchmarks/trials``, of which thousands are run by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.trials.command_lines import LINES, trials
from tests.documented_commands import Parsed, stop_after_parsing

TRIALS = {
    "command_lines": (12, "0 of 12 command lines led to a traceback, a hang or no clear end"),
    "damaged": (10, "0 of 10 damaged folders led to a traceback, a hang or a wrong result"),
    "killed": (5, "5 of 5 killed runs ended with the bytes of an undisturbed one"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_a_few_trials_go_well(name: str):
    count, verdict = TRIALS[name]
    command = [sys.executable, "-m", f"benchmarks.trials.{name}", "--trials", str(count), "--seed", "7"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert verdict in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("name", [name for name in LINES if LINES[name].words])
def test_a_command_line_of_the_trials_is_right_before_options_are_added(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    stop_after_parsing(monkeypatch)
    with pytest.raises(Parsed):
        LINES[name].command(LINES[name].words)


def test_a_command_line_with_an_error_of_its_own_ends_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    line = LINES["describe"]._replace(words=["sngan", "--hidden-dim", "4"])
    monkeypatch.setattr("benchmarks.trials.command_lines.LINES", {"describe": line})
    monkeypatch.setattr("benchmarks.trials.command_lines._furnish", lambda place, data: place.mkdir())
    with pytest.raises(RuntimeError, match=r"describe sngan --hidden-dim 4: status 2: .*--hidden-dim"):
        list(trials(tmp_path, 1, 0))
