"""Saves that are killed, interrupted or refused: what is left is whole."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.runs import checkpoints
from gan_blocks.engine.runs.checkpoints import load_latest_checkpoint, remove_stale_temporaries, save_checkpoint
from tests.engine.runs.saved_checkpoints import FILES, METADATA, contents, names, save

# Kills


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What another process, which killed its children while they were saving, found after each kill."""
    folder = tmp_path_factory.mktemp("kills")
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.runs.killed_saves", str(folder)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    return {"folder": folder, **json.loads(done.stdout)}


def test_a_run_killed_at_random_moments_resumes_cleanly_each_time(kills: dict[str, Any]):
    found = kills["random"]
    assert len(found) == 10
    assert all(entry["notes"] == [] for entry in found)
    assert all(entry["values"] == [entry["step"]] for entry in found)
    steps = [entry["step"] for entry in found]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("case", ["next step", "same step"])
def test_a_process_that_dies_before_any_one_change_to_the_disk_leaves_a_whole_checkpoint(
    kills: dict[str, Any], case: str
):
    *died, survived = kills[case]
    assert survived["survived"]
    assert len(died) >= 10
    assert any(entry["had_temporaries"] for entry in died)
    values = [entry["values"] for entry in kills[case]]
    # First the old one, from some point on the new one, and never a mixture.
    assert values == sorted(values)
    assert values[0] == [1]
    assert values[-1] == [2]
    assert all(value in ([1], [2]) for value in values)
    assert all(entry["notes"] == [] for entry in kills[case])
    assert all(name.removeprefix("step_").isdigit() for entry in kills[case] for name in entry["left"])


def test_two_processes_write_identical_files(kills: dict[str, Any], tmp_path: Path):
    save(tmp_path, 500, 0.1)
    assert contents(tmp_path / "step_000500") == contents(kills["folder"] / "identical" / "step_000500")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="file names of descriptors are looked up in /proc")
def test_everything_is_flushed_to_the_disk_before_and_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    save(tmp_path, 1, 1)
    assert events == [*FILES, "step_000001.tmp", "rename", tmp_path.name]


# Stale temporaries and failures


def test_stale_temporaries_are_removed_on_the_next_start(tmp_path: Path):
    save(tmp_path, 1, 1)
    shutil.copytree(tmp_path / "step_000001", tmp_path / "step_000002.tmp")
    shutil.copytree(tmp_path / "step_000001", tmp_path / "step_000001.replaced")
    (tmp_path / "notes.tmp").write_text("the user's own")
    remove_stale_temporaries(tmp_path)
    assert names(tmp_path) == ["notes.tmp", "step_000001"]
    remove_stale_temporaries(tmp_path / "nowhere")


def test_a_checkpoint_set_aside_for_its_successor_comes_back_when_that_never_arrived(tmp_path: Path):
    save(tmp_path, 1, 1)
    (tmp_path / "step_000001").rename(tmp_path / "step_000001.replaced")
    remove_stale_temporaries(tmp_path)
    assert load_latest_checkpoint(tmp_path).step == 1


@pytest.mark.parametrize("failing_write", range(4))
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, r"the disk mounted at /\S* is full \([\d.]+ [kMG]B free, 524 bytes needed\)"),
        (errno.EDQUOT, r"your quota on the disk mounted at /\S* is used up \([\d.]+ [kMG]B free, 524 bytes needed\)"),
        (errno.EROFS, "Read-only file system"),
    ],
)
def test_a_write_that_fails_leaves_the_previous_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_write: int, number: int, reason: str
):
    save(tmp_path, 1, 1)
    writes = iter(range(99))

    def fail_later(path: Path, data: bytes) -> None:
        path.write_bytes(data[: len(data) // 2])
        if next(writes) == failing_write:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoints, "write_durably", fail_later)
    pattern = rf"^{tmp_path}/step_000002 was not written: {reason}\. The checkpoints before it are untouched\.$"
    with pytest.raises(UserError, match=pattern):
        save(tmp_path, 2, 2)
    assert names(tmp_path) == ["step_000001"]
    assert load_latest_checkpoint(tmp_path).step == 1


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match=r"checkpoints/step_000001 was not written: File exists\."):
        save(tmp_path / "checkpoints", 1, 1)


def test_an_interrupted_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    save(tmp_path, 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sync_directory", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, 2)
    assert names(tmp_path) == ["step_000001"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting is not permitted here")
    yield disk
    # Lazily, since tensors that were read are still mapped from it.
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_really_full_disk_leaves_the_previous_checkpoint_whole(small_disk: Path):
    def save_floats(step: int, count: int) -> None:
        tensors = {"ema": {"w": torch.zeros(count)}, "generator": {"w": torch.zeros(count)}}
        save_checkpoint(small_disk / "checkpoints", step, tensors, METADATA, keep_last=2)

    save_floats(1, count=50_000)  # 0.4 of 1.05 MB
    with pytest.raises(UserError) as error:
        save_floats(2, count=100_000)
    # What was free when it failed, not once the unfinished checkpoint is gone.
    assert re.fullmatch(
        f"{small_disk}/checkpoints/step_000002 was not written: the disk mounted at {small_disk} is full "
        r"\((0 bytes|[\d.]+ kB) free, 800 kB needed\)\. The checkpoints before it are untouched\.",
        str(error.value),
    )
    assert names(small_disk / "checkpoints") == ["step_000001"]
    assert load_latest_checkpoint(small_disk / "checkpoints").tensors["ema"]["w"].shape == (50_000,)
    save_floats(3, count=50_000)  # the room that the failed one took is free again
    assert load_latest_checkpoint(small_disk / "checkpoints").step == 3
