import os
from pathlib import Path

import numpy as np
import pytest

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import prepare
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.data.shards.format import INDEX_NAME
from tests.engine.commands.preparing import assert_equal_sets, damage_two, load, run, tree

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


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
