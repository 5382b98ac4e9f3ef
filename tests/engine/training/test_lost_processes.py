"""What processes that train together say when one of them is gone, frozen, late, or finds other files than they."""

from pathlib import Path

import pytest

from benchmarks.trials.frozen_ranks import run_trials
from tests.engine.training.test_distributed_training import carried_out, said, statuses

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scenarios, carried out by processes forked from one that has imported torch."""
    return carried_out("lost", tmp_path_factory.mktemp("lost"))


def error_of(folder: Path, name: str, rank: int) -> str:
    """The one line that a rank has of an error."""
    (line,) = [line for line in said(folder, name, rank).splitlines() if "error:" in line]
    assert not any(word in said(folder, name, rank) for word in ("Traceback", ".cpp", "frame #", "GLHF"))
    return line.removeprefix("biggan_deep: error: ")


@pytest.mark.parametrize(
    ("name", "status", "verdict"),
    [
        ("unserved", -9, "no word from rank 0 (timed out)"),
        ("headless", -9, "no word from rank 0 (connection lost)"),
        ("failed", 2, "rank 0 failed: log.jsonl was not written: Read-only file system"),
    ],
)
def test_a_rank_0_that_freezes_dies_or_fails_is_named_by_all_others(folder: Path, name: str, status: int, verdict: str):
    assert statuses(folder, name) == [status, 2, 2]
    for rank in (1, 2):
        assert error_of(folder, name, rank) == f"rank {rank} lost touch with the other processes: {verdict}"


def test_a_process_that_is_too_slow_is_told_from_one_that_is_gone(folder: Path):
    verdict = "no word from rank 1, though it runs: a longer --timeout waits for what takes long"
    assert statuses(folder, "slow") == [2, 2]
    assert error_of(folder, "slow", 0) == f"rank 0 lost touch with the other processes: {verdict} (timed out)"
    late = error_of(folder, "slow", 1)  # it may come so late that rank 0 is gone
    assert "they have given up waiting for rank 1" in late or "no word from rank 0" in late


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_run", "rank 1 finds no run in run: the run folder must be shared by all processes."),
        ("no_steps", "rank 1 finds no checkpoint of step 3 in run: the run folder must be shared by all processes."),
        ("damaged", "rank 1 finds no checkpoint of step 3 in run/checkpoints: the run folder must be shared"),
    ],
)
def test_a_process_that_does_not_find_what_is_to_be_continued_is_named(folder: Path, name: str, message: str):
    assert statuses(folder, name) == [2, 2]
    assert error_of(folder, name, 0).startswith(message)
    assert "error" not in said(folder, name, 1)


def test_what_one_process_alone_does_not_find_at_the_start_is_told_to_the_others(folder: Path):
    assert statuses(folder, "no_origin") == [2, 2]
    assert error_of(folder, "no_origin", 1) == "there is no run folder run."
    told = "rank 0 lost touch with the other processes: rank 1 failed: there is no run folder run"
    assert error_of(folder, "no_origin", 0) == told


def test_processes_that_freeze_or_die_at_random_moments_are_named_by_the_others_in_time():
    assert run_trials(3, seed=1) == 3
