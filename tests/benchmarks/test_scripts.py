"""Scripts of ``benchmarks`` that no other test runs end with status 0 at small sizes, and name the machine."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = {
    "checkpoint_saving": ["--bytes", "100000", "--rounds", "1"],
    "data_reading": ["--images", "12", "--batch", "4", "--batches", "1", "--rounds", "1"],
    "steps.r1": ["--channels", "8", "--batch", "2", "--rounds", "1"],
    "parts.spectrum_monitor": ["--channels", "8", "--batch", "2", "--every", "2", "--measurements", "2"],
    "weak_scaling": ["--steps", "1", "--batch", "2", "--channels", "8", "--rounds", "1"],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(name: str):
    command = [sys.executable, "-m", f"benchmarks.{name}", *SCRIPTS[name]]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "commit " in done.stdout
