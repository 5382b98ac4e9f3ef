"""A store that was not finished, or is there already: what the same command does then."""

import errno
import itertools
import json
import os
import shlex
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import prepare
from gan_blocks.engine.data.shards.format import INDEX_NAME, StoreIndex
from tests.engine.commands.preparing import assert_equal_sets, damage_two, load, run, tree
from tests.engine.dying import die_before

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def test_a_part_in_which_images_were_damaged_is_written_again(pictures: Path, tmp_path: Path):
    damage_two(pictures)
    store, wanted = tmp_path / "store", tmp_path / "wanted"
    late, fixed = (pictures / "cat" / name for name in ("10.jpg", "00.png"))
    kept = late.read_bytes()
    late.write_bytes(b"")
    assert run(pictures, store, "--shard-images", "256") == 2  # the third damaged image, in the second shard
    late.write_bytes(kept)
    shutil.copy(pictures / "cat" / "06.png", fixed)
    assert run(pictures, wanted, "--shard-images", "256") == 0
    assert run(pictures, store, "--shard-images", "256") == 0
    assert tree(store) == tree(wanted)


def in_two_parts(pictures: Path, store: Path) -> prepare.Options:
    return prepare.Options(f"folder:{pictures}", store, (4, 8), shard_images=6)


def killed_before(count: int, options: prepare.Options) -> bool:
    """Prepare in a process that dies before its n-th change to the disk; whether it died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forking beside threads
        child = os.fork()
    if child == 0:
        die_before(count)
        prepare.prepare(options)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 1


@pytest.mark.slow
def test_killed_at_any_moment_a_store_is_refused_or_whole_and_the_same_command_completes_it(
    pictures: Path, tmp_path: Path
):
    wanted = tmp_path / "wanted"
    prepare.prepare(in_two_parts(pictures, wanted))
    whole = 0
    for count in itertools.count():
        store = tmp_path / str(count)
        died = killed_before(count, in_two_parts(pictures, store))
        if (store / INDEX_NAME).exists():
            assert_equal_sets(load(f"shards:{store}", 8), load(f"shards:{wanted}", 8))
            whole += died
        else:
            with pytest.raises(UserError, match=r"not finished|there is no file or folder"):
                load(f"shards:{store}", 8)
        prepare.prepare(in_two_parts(pictures, store))
        assert tree(store) == tree(wanted)
        assert not (store / "unfinished").exists()
        if not died:
            break
    assert count > 25  # two flushes and a rename a shard, and more
    assert whole >= 3  # killed after the index, while the records are removed


def test_what_is_on_the_disk_is_not_read_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    opened: list[str] = []
    image_open = Image.open

    def stop_at_the_ninth(path: str) -> Image.Image:
        opened.append(path)
        if len(opened) == 9:
            raise MemoryError
        return image_open(path)

    monkeypatch.setattr(Image, "open", stop_at_the_ninth)
    store = tmp_path / "store"
    assert run(pictures, store, "--workers", "1") == 2
    before = len(opened)
    capsys.readouterr()
    assert run(pictures, store, "--workers", "1") == 0
    assert "Continuing: 1 of 3 shards of each size are there.\n" in capsys.readouterr().out
    assert len(set(opened[before:])) == 7
    assert set(opened[before:]).isdisjoint(opened[:5])


@pytest.mark.parametrize(
    "change",
    [
        lambda values: "[" * 100_000,
        lambda values: json.dumps([]),
        *(
            lambda values, changed=changed: json.dumps({**values, **changed})
            for changed in (
                {"labels": "x"},
                {"labels": [7] * 5},
                {"labels": []},
                {"facts": [[]]},
                {"facts": [["RGB", False, False, "many"]]},
                {"facts": [[[], False, False, {}]]},
                {"shards": [1, 2]},
                {"shards": []},
                {"shards": [{"name": "8/shard_00001.zip", "bytes": 1, "sha256": ""}] * 2},
                {"damaged": 3},
            )
        ),
    ],
)
def test_a_part_whose_record_makes_no_sense_is_written_again(
    change: Callable[[dict[str, Any]], str],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    store, wanted = tmp_path / "store", tmp_path / "wanted"
    assert run(pictures, wanted) == 0
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    assert run(pictures, store) == 0
    monkeypatch.undo()
    (store / INDEX_NAME).unlink()
    record = store / "unfinished" / "part_00001.json"
    record.write_text(change(json.loads(record.read_bytes())))
    capsys.readouterr()
    assert run(pictures, store) == 0
    assert "Continuing: 2 of 3 shards of each size are there.\n" in capsys.readouterr().out
    assert tree(store) == tree(wanted)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "", None])
def test_a_beginning_that_makes_no_sense_is_one_line(
    content: str | None, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plan = tmp_path / "store" / "unfinished" / "made_from.json"
    plan.parent.mkdir(parents=True)
    os.mkfifo(plan) if content is None else plan.write_text(content)
    assert run(pictures, tmp_path / "store") == 2
    what = "no regular file." if content is None else f"garbled; remove {tmp_path}/store and start again."
    assert capsys.readouterr().err == f"prepare: error: {plan} is {what}\n"


def test_a_full_disk_and_ctrl_c_end_in_one_line_and_the_same_command_continues(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    store, wanted = tmp_path / "store", tmp_path / "wanted"
    assert run(pictures, wanted) == 0
    fsync = os.fsync
    for trouble, status, said in (
        (OSError(errno.ENOSPC, "No space left on device"), 2, f"prepare: error: {store} was not written: the disk"),
        (KeyboardInterrupt(), 130, "Stopped."),
    ):
        calls = itertools.count()

        def fail(descriptor: int, trouble: BaseException = trouble, calls: Any = calls) -> None:
            if next(calls) == 12:
                raise trouble
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", fail)
        capsys.readouterr()
        assert run(pictures, store) == status
        shown, message = capsys.readouterr()
        assert message.startswith(said)
        assert message.count("\n") == 1
        if status == 2:
            assert message.endswith("Run the same command again to continue.\n")
        else:
            assert shlex.split(shown.splitlines()[-1])[-4:] == ["4", "8", "--shard-images", "5"]
        assert not list(store.rglob("*.tmp"))
    monkeypatch.setattr(os, "fsync", fsync)
    assert run(pictures, store) == 0
    assert tree(store) == tree(wanted)


@pytest.mark.parametrize("finished", [True, False])
def test_a_store_is_continued_with_the_same_images_and_options_only(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, finished: bool
):
    store = tmp_path / "store"
    assert run(pictures, store) == 0
    if not finished:
        made_from = StoreIndex.read(store).made_from
        (store / INDEX_NAME).unlink()
        (store / "unfinished").mkdir()
        (store / "unfinished" / "made_from.json").write_text(json.dumps(made_from))
    for more, what in (
        (("--channels", "1"), "begun with --channels 3, not --channels 1"),
        (("--resolution", "8"), "begun with --resolution 8 4, not --resolution 8"),
        (("--shard-images", "6"), "begun with --shard-images 5, not --shard-images 6"),
        (
            ("--data", f"folder:{pictures}/cat"),
            f"begun with --data folder:{pictures}, not --data folder:{pictures}/cat",
        ),
    ):
        assert run(pictures, store, *more) == 2
        expected = f"the store {store} was {what}; name another --out, or remove that folder."
        assert capsys.readouterr().err == f"prepare: error: {expected}\n"
    (pictures / "cat" / "10.jpg").rename(pictures / "cat" / "11.jpg")
    assert run(pictures, store) == 2
    assert (
        "was begun with other images or landmarks: files were added, removed, renamed or edited since"
        in capsys.readouterr().err
    )


def test_on_a_whole_store_every_byte_is_checked(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store = tmp_path / "store"
    assert run(pictures, store) == 0
    assert run(pictures, store) == 0
    assert "The store is there already, and each of its 6 shards is whole.\n" in capsys.readouterr().out
    path = store / "4" / "shard_00002.zip"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert run(pictures, store) == 2
    expected = f"the shard {path} is damaged (its SHA-256 differs); remove {store} and start again."
    assert capsys.readouterr().err == f"prepare: error: {expected}\n"
    path.unlink()
    assert run(pictures, store) == 2
    assert capsys.readouterr().err == f"prepare: error: the shard {path} is missing; remove {store} and start again.\n"


def test_a_folder_with_something_else_in_it_is_left_alone(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()
    assert run(pictures, tmp_path / "letters") == 2
    rule = "is neither empty nor the beginning of a store; name another folder."
    assert capsys.readouterr().err == f"prepare: error: --out {tmp_path}/letters {rule}\n"
    assert run(pictures, pictures / "store") == 2
    assert "lies inside the images of --data; name a folder beside them." in capsys.readouterr().err
    assert sorted(path.name for path in pictures.iterdir()) == ["ant", "cat"]


def test_a_store_that_another_process_writes_is_left_alone(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    store = tmp_path / "store"
    statuses: list[int] = []
    read = Image.open

    def meanwhile(path: str) -> Image.Image:
        if not statuses:
            statuses.append(0)
            statuses[0] = run(pictures, store)
        return read(path)

    monkeypatch.setattr(Image, "open", meanwhile)
    assert run(pictures, store, "--workers", "1") == 0
    assert statuses == [2]
    assert f"{store / 'unfinished'} is in use by process " in capsys.readouterr().err
