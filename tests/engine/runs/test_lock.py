import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.runs.lock import LOCK_NAME, FolderLock, refuse_links
from gan_blocks.engine.studies.study import Study
from recipes import biggan_deep

HOLD = "import sys, pathlib; from gan_blocks.engine.runs.lock import FolderLock; "
HOLD += "lock = FolderLock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_the_second_process_is_told_who_holds_the_folder_and_a_dead_one_holds_nothing(tmp_path: Path, holder):
    who = f"process {holder.pid} on {socket.gethostname()}"
    with pytest.raises(UserError) as error:
        FolderLock(tmp_path)
    assert str(error.value) == f"{tmp_path} is in use by {who}. Wait until it has ended, or name another folder."
    holder.kill()
    holder.wait()
    lock = FolderLock(tmp_path)
    assert lock.note is None
    assert f'"pid": {os.getpid()}' in (tmp_path / LOCK_NAME).read_text()
    lock.close()


def test_a_folder_can_be_taken_again_once_it_is_let_go(tmp_path: Path):
    for _ in range(2):
        FolderLock(tmp_path).close()
    lock = FolderLock(tmp_path)
    with pytest.raises(UserError, match=f"is in use by process {os.getpid()} on "):
        FolderLock(tmp_path)
    lock.close()


def test_where_there_are_no_locks_that_is_said_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lock = FolderLock(tmp_path)
    assert lock.note == f"The file system of {tmp_path} has no locks: let no other process write there."


def test_what_the_file_says_of_its_holder_need_not_be_sound(tmp_path: Path, holder):
    for text in ("", "[]", '{"pid": "x", "host": 1}', "[" * 2000):
        (tmp_path / LOCK_NAME).write_text(text)
        with pytest.raises(UserError, match=r"is in use by another process\. Wait"):
            FolderLock(tmp_path)


@pytest.mark.parametrize("name", ["log.jsonl", "checkpoints", "checkpoints/step_000001", "samples/step_000001.png"])
def test_a_link_in_the_folder_of_a_run_is_refused(tmp_path: Path, name: str):
    for folder in ("checkpoints", "samples"):
        if name != folder:
            (tmp_path / folder).mkdir()
    refuse_links(tmp_path)
    (tmp_path / name).symlink_to(tmp_path.parent)
    with pytest.raises(UserError, match=rf"^{tmp_path / name} is a link, and a run writes into its own folder alone\."):
        refuse_links(tmp_path)


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / LOCK_NAME).symlink_to(victim)
    with pytest.raises(UserError, match=rf"{LOCK_NAME} was not written: "):
        FolderLock(tmp_path)
    assert victim.read_text() == "precious"


def test_a_second_training_in_the_same_folder_ends_with_one_line_and_harms_nothing(
    tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    args = [*tiny_args, "--run-dir", str(run), "--steps", "2"]
    assert biggan_deep.RECIPE.main(args) == 0
    lock = FolderLock(run)
    capfd.readouterr()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert biggan_deep.RECIPE.main([*args[:-1], "4"]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith(f"biggan_deep: error: {run} is in use by process ")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    lock.close()
    assert biggan_deep.RECIPE.main([*args[:-1], "4"]) == 0


def test_a_second_study_in_the_same_folder_is_refused(tmp_path: Path):
    study = Study(tmp_path, {"steps": 3})
    with pytest.raises(UserError, match=f"^{tmp_path} is in use by process {os.getpid()} on "):
        Study(tmp_path, {"steps": 3})
    del study
    Study(tmp_path, {"steps": 3})
