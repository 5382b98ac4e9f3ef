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

import numpy as np
import pytest
import torch
from PIL import Image

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import prepare
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.data.shards.format import INDEX_NAME, StoreIndex

SIZES = ("--resolution", "4", "8", "--shard-images", "5")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # it guards against power failures, not against kills


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of several forms in two classes."""
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (9 + number, 14, 3), dtype=np.uint8)
        path = tmp_path / "pictures" / ("cat", "ant")[number % 2] / f"{number:02}.{('jpg', 'png')[number % 3 == 0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


def run(pictures: Path, store: Path, *more: str) -> int:
    return prepare.main(["--data", f"folder:{pictures}", "--out", str(store), *SIZES, *more])


def load(spec: str, resolution: int, channels: int = 3) -> ImageSet:
    return load_images(spec, resolution=resolution, channels=channels, num_classes=None)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_equal_sets(found: ImageSet, wanted: ImageSet) -> None:
    assert torch.equal(found.labels, wanted.labels)
    assert found.class_names == wanted.class_names
    everything = torch.arange(len(wanted))
    assert torch.equal(found.read_pixels(everything), wanted.read_pixels(everything))


def test_a_store_of_a_folder_holds_what_training_would_read_from_the_folder(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = tmp_path / "store"
    assert run(pictures, store) == 0
    *said, train, presets = capsys.readouterr().out.splitlines()
    assert said == [
        "Preparing 12 images at 8 x 8, 4 x 4 in 3 shards of each size.",
        "Note: cropped 11 of 12 images to the square in their middle.",
        "12 images of 2 classes, 0.0 MB.",
        "Next:",
    ]
    assert train.endswith(f" train biggan_deep --data shards:{store}")
    assert presets.endswith(" presets")
    for resolution in (4, 8):
        assert_equal_sets(load(f"shards:{store}", resolution), load(f"folder:{pictures}", resolution))
    names = [f"{size}/shard_0000{number}.zip" for size in (4, 8) for number in range(3)]
    assert sorted(tree(store)) == [*names, INDEX_NAME]


def test_a_store_of_arrays_holds_the_same_images_with_the_same_notes(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    args = ["--data", f"npz:{tiny_data}", "--out", str(tmp_path / "store"), "--resolution", "16", "8"]
    assert prepare.main([*args, "--channels", "1"]) == 0
    for resolution in (8, 16):
        assert_equal_sets(
            load(f"shards:{tmp_path}/store", resolution, channels=1), load(f"npz:{tiny_data}", resolution, channels=1)
        )
    assert prepare.main([*args[:3], str(tmp_path / "color"), *args[4:]]) == 0
    note = "converted 60 of 60 images to RGB: 60 gray"
    assert f"Note: {note}.\n" in capsys.readouterr().out
    assert load(f"shards:{tmp_path}/color", 16).notes == (note,)


def test_arrays_without_labels_are_one_class(tiny_data: Path, tmp_path: Path):
    arrays = tmp_path / "unlabeled.npz"
    with np.load(tiny_data) as saved:
        np.savez(arrays, images=saved["images"])
    args = ["--data", f"npz:{arrays}", "--out", str(tmp_path / "store"), "--resolution", "16", "--channels", "1"]
    assert prepare.main(args) == 0
    store, images = (
        load_images(spec, resolution=16, channels=1, num_classes=1)
        for spec in (f"shards:{tmp_path}/store", f"npz:{arrays}")
    )
    assert_equal_sets(store, images)
    assert store.num_classes == 1
    with np.load(tiny_data) as saved:
        np.savez(arrays, labels=saved["labels"])
    with pytest.raises(UserError, match=r"but images is missing; it holds labels\.$"):
        prepare.prepare(prepare.Options(f"npz:{arrays}", tmp_path / "other", (16,)))


def test_images_that_lie_directly_in_the_folder_are_one_class(pictures: Path, tmp_path: Path):
    store = tmp_path / "store"
    assert run(pictures / "cat", store) == 0
    found = load_images(f"shards:{store}", resolution=8, channels=3, num_classes=1)
    assert found.class_names == ("all images",)
    assert len(found) == 6
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=rf"^--data folder:{tmp_path}/none: {tmp_path}/none holds no images\.$"):
        prepare.prepare(prepare.Options(f"folder:{tmp_path}/none", store, (8,)))


def test_shards_hold_256_mebibytes_unless_told_otherwise(tmp_path: Path):
    assert prepare.Options("mnist5k", tmp_path, (128, 64)).images_in_a_shard() == 5442  # 49,320 bytes each
    assert prepare.Options("mnist5k", tmp_path, (1,)).images_in_a_shard() == 1_000_000


def damage_two(pictures: Path) -> None:
    for number in range(250):
        shutil.copy(pictures / "ant" / "01.jpg", pictures / "ant" / f"more_{number:03}.jpg")
    for name in ("cat/00.png", "ant/more_249.jpg"):
        (pictures / name).write_bytes(b"no image")


def test_damaged_images_are_skipped_and_counted_as_training_does(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    damage_two(pictures)
    store = tmp_path / "store"
    assert run(pictures, store, "--shard-images", "1") == 0  # two of the shards are empty
    out = capsys.readouterr().out
    assert f"Note: skipped: 2 of 262 image files cannot be read: {pictures}/ant/more_249.jpg (" in out
    assert "260 images of 2 classes" in out
    assert_equal_sets(load(f"shards:{store}", 8), load(f"folder:{pictures}", 8))


def test_above_one_percent_damage_is_fatal_and_the_store_goes_on_when_the_files_are_fixed(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store, wanted = tmp_path / "store", tmp_path / "wanted"
    assert run(pictures, wanted) == 0
    path = pictures / "cat" / "10.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert run(pictures, store) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"prepare: error: --data folder:{pictures}: 1 of 12 image files cannot be read: {path} (")
    assert message.endswith("above 1 % this is fatal: fix or remove them.\n")
    path.write_bytes(whole)
    assert run(pictures, store) == 0
    assert "Continuing: 2 of 3 shards of each size are there.\n" in capsys.readouterr().out
    assert tree(store) == tree(wanted)


def test_all_damage_is_named_at_once_as_training_does(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("ant/01.jpg", "ant/11.jpg", "cat/02.jpg", "cat/10.jpg"):
        (pictures / name).write_bytes(b"no image")
    assert run(pictures, tmp_path / "store") == 2
    message = capsys.readouterr().err.removeprefix("prepare: error: ").strip()
    assert message.startswith(
        f"--data folder:{pictures}: 4 of 12 image files cannot be read: {pictures}/ant/01.jpg (it"
    )
    assert message.endswith("cat/02.jpg (it is a text file) and 1 more; above 1 % this is fatal: fix or remove them.")
    with pytest.raises(UserError) as caught:
        load(f"folder:{pictures}", 8)
    assert str(caught.value) == message


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


def die_before(count: int) -> None:
    calls = itertools.count()

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if next(calls) == count:
                os._exit(1)
            return original(*args, **options)

        return call

    for name in ("mkdir", "fsync", "replace", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))


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


def test_links_in_a_circle_and_pipes_are_one_line(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    for args, error in (
        ((tmp_path / "circle", tmp_path / "store"), f"--data folder:{tmp_path}/circle: there is no file or folder "),
        ((pictures, tmp_path / "circle"), f"{tmp_path}/circle/unfinished/made_from.json was not written: "),
        ((pictures, tmp_path / "pipe"), f"{tmp_path}/pipe"),
        (
            (pictures, tmp_path / "s", "--landmarks", str(tmp_path / "pipe")),
            f"--landmarks {tmp_path}/pipe is no regular",
        ),
    ):
        assert run(*args) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"prepare: error: {error}")
        assert message.count("\n") == 1


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


@pytest.mark.parametrize(
    ("args", "rule"),
    [
        (("--resolution", "0"), "--resolution must be one or more different numbers of at least 1, but got 0."),
        (("--resolution", "8", "8"), "--resolution must be one or more different numbers of at least 1, but got 8 8."),
        (("--resolution",), "--resolution must be one or more different numbers of at least 1, but got none."),
        (
            ("--resolution", "8", "31623"),
            "--resolution must be at most 31,622 (an image of 1,000 megapixels), but got 31623.",
        ),
        (("--shard-images", "0"), "--shard-images must be from 1 to 1,000,000, but got 0."),
        (("--workers", "0"), "--workers must be at least 1, but got 0."),
        (("--data", "imagenet"), "--data imagenet: unknown source; choose one of "),
    ],
)
def test_values_that_cannot_work_end_with_one_line(
    args: tuple[str, ...], rule: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(pictures, tmp_path / "store", *args) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"prepare: error: {rule}")
    assert message.count("\n") == 1
    assert not (tmp_path / "store").exists()


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
