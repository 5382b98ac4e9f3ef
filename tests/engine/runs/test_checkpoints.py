import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.runs import checkpoints
from gan_blocks.engine.runs.checkpoints import (
    MissingPartError,
    list_checkpoints,
    load_latest_checkpoint,
    save_checkpoint,
)
from gan_blocks.engine.runs.weights import read_weights
from tests.engine.runs.saved_checkpoints import FILES, METADATA, contents, example_tensors, names, save

# Round trip and format


def test_a_checkpoint_gives_back_tensors_of_every_kind(tmp_path: Path, rng: torch.Generator):
    tensors = {
        "generator": {
            "float": torch.randn(3, 4, generator=rng),
            "double": torch.randn(2, generator=rng, dtype=torch.float64),
            "bfloat": torch.randn(5, generator=rng).bfloat16(),
            "count": torch.tensor(7),
            "flag": torch.tensor([True, False]),
            "nothing": torch.empty(0, 3),
            "not a number": torch.tensor([float("nan"), float("-inf"), -0.0]),
        },
        "optimizer_g": {},
    }
    path = save_checkpoint(tmp_path / "deep" / "checkpoints", 12, tensors, METADATA, keep_last=1)
    found = load_latest_checkpoint(tmp_path / "deep" / "checkpoints")
    assert (found.step, found.path, found.notes) == (12, path, ())
    assert found.tensors.keys() == tensors.keys()
    assert not found.tensors["optimizer_g"]
    for name, expected in tensors["generator"].items():
        actual = found.tensors["generator"][name]
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        assert actual.numpy(force=True).tobytes() == expected.numpy(force=True).tobytes() if name != "bfloat" else True
    torch.testing.assert_close(found.tensors["generator"]["bfloat"], tensors["generator"]["bfloat"], rtol=0, atol=0)


def test_the_state_file_says_the_step_and_which_parts_there_are(tmp_path: Path):
    save(tmp_path, 500, 0.1)
    saved = json.loads((tmp_path / "step_000500" / "state.json").read_text())
    assert saved == {"step": 500, "parts": ["ema", "optimizer_g"]}


def test_the_manifest_lists_size_and_hash_of_every_other_file(tmp_path: Path):
    save(tmp_path, 500, 0.1)
    folder = tmp_path / "step_000500"
    assert names(tmp_path) == ["step_000500"]
    assert names(folder) == sorted(FILES)
    assert json.loads((folder / "MANIFEST.json").read_text()) == {
        "files": {
            name: {"size": len(data), "xxh3_128": xxhash.xxh3_128_hexdigest(data)}
            for name, data in contents(folder).items()
            if name != "MANIFEST.json"
        }
    }


def test_each_weights_file_says_in_one_key_what_it_belongs_to(tmp_path: Path):
    save(tmp_path, 500, 0.1)
    with safe_open(tmp_path / "step_000500" / "ema.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert list(metadata) == ["gan_blocks"]
    assert json.loads(metadata["gan_blocks"]) == {**METADATA, "part": "ema", "step": 500}
    assert read_weights(tmp_path / "step_000500" / "ema.safetensors")[1] == {**METADATA, "part": "ema", "step": 500}


def test_equal_checkpoints_are_byte_identical_whatever_the_memory_format_and_order(tmp_path: Path):
    first = example_tensors(0.1)
    second = {part: {name: first[part][name].contiguous() for name in reversed(first[part])} for part in first}
    metadata = dict(reversed(METADATA.items()))
    one = save_checkpoint(tmp_path / "1", 5, first, METADATA, keep_last=1)
    two = save_checkpoint(tmp_path / "2", 5, second, metadata, keep_last=1)
    assert contents(one) == contents(two)


def test_steps_beyond_six_digits_keep_their_order(tmp_path: Path):
    for step in (999_999, 1_000_000, 10):
        (tmp_path / f"step_{step:06d}").mkdir()
    (tmp_path / "step_000011.tmp").mkdir()
    (tmp_path / "step_000012").write_text("not a folder")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000010", "step_999999", "step_1000000"]
    assert list_checkpoints(tmp_path / "nowhere") == []


# Damage


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [delete, truncate, empty, lengthen, flip_a_bit])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_taken(
    tmp_path: Path, damage: Callable[[Path], None], name: str
):
    save(tmp_path, 1, 1, keep_last=2)
    save(tmp_path, 2, 2, keep_last=2)
    damage(tmp_path / "step_000002" / name)
    found = load_latest_checkpoint(tmp_path)
    assert (found.step, found.tensors["ema"]["gamma"].item()) == (1, 1)
    assert found.tensors["optimizer_g"]["gamma.exp_avg"].tolist() == [1] * 33
    (note,) = found.notes
    assert note.startswith("checkpoint step_000002 is damaged: ")
    assert name in note
    assert note.endswith("; taking the one before it.")


def test_the_note_says_what_is_wrong(tmp_path: Path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, step, keep_last=9)
    (tmp_path / "step_000004" / "state.json").unlink()
    os.truncate(tmp_path / "step_000003" / "ema.safetensors", 100)
    size = (tmp_path / "step_000001" / "ema.safetensors").stat().st_size
    passed_over = "taking the one before it."
    flip_a_bit(tmp_path / "step_000002" / "optimizer_g.safetensors")
    assert load_latest_checkpoint(tmp_path).notes == (
        f"checkpoint step_000004 is damaged: state.json is missing; {passed_over}",
        f"checkpoint step_000003 is damaged: ema.safetensors has 100 bytes instead of {size}; {passed_over}",
        "checkpoint step_000002 is damaged: the content of optimizer_g.safetensors has changed (its hash differs); "
        + passed_over,
    )


def test_a_checkpoint_of_an_older_version_is_compared_by_its_sha256(tmp_path: Path):
    for step in (1, 2):
        save(tmp_path, step, step, keep_last=2)
        folder = tmp_path / f"step_00000{step}"
        entries = {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in contents(folder).items()
            if name != "MANIFEST.json"
        }
        (folder / "MANIFEST.json").write_text(json.dumps({"files": entries}))
    assert load_latest_checkpoint(tmp_path).notes == ()
    flip_a_bit(tmp_path / "step_000002" / "ema.safetensors")
    found = load_latest_checkpoint(tmp_path)
    assert found.step == 1
    assert "ema.safetensors has changed (its hash differs)" in found.notes[0]


@pytest.mark.parametrize(
    "entry",
    [None, [], "size", {"size": "1", "xxh3_128": ""}, {"size": 1, "xxh3_128": None}, {"size": 1, "blake4": ""}, {}],
    ids=str,
)
def test_an_entry_of_the_manifest_that_says_nothing_is_not_taken_for_damage_of_the_file(tmp_path: Path, entry: object):
    save(tmp_path, 1, 1)
    folder = tmp_path / "step_000001"
    listed = json.loads((folder / "MANIFEST.json").read_text())
    listed["files"]["ema.safetensors"] = entry
    (folder / "MANIFEST.json").write_text(json.dumps(listed))
    rule = r"MANIFEST\.json is garbled: its entry of ema\.safetensors is not a size in bytes and a hash that is known\."
    with pytest.raises(UserError, match=rule):
        load_latest_checkpoint(tmp_path)
    with pytest.raises(UserError, match=rule):
        read_weights(folder / "ema.safetensors")


@given(data=st.data())
def test_no_flipped_bit_anywhere_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    folder = tmp_path_factory.mktemp("flips")
    save(folder, 1, 1)
    path = folder / "step_000001" / data.draw(st.sampled_from(FILES))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^there is no whole checkpoint in "):
        load_latest_checkpoint(folder)


def test_when_no_checkpoint_is_whole_the_reason_for_each_is_given(tmp_path: Path):
    save(tmp_path, 1, 1, keep_last=2)
    save(tmp_path, 2, 2, keep_last=2)
    (tmp_path / "step_000001" / "MANIFEST.json").write_text("{}")
    (tmp_path / "step_000002" / "ema.safetensors").unlink()
    with pytest.raises(UserError) as error:
        load_latest_checkpoint(tmp_path)
    assert str(error.value) == (
        f"there is no whole checkpoint in {tmp_path}: checkpoint step_000002 is damaged: ema.safetensors is missing; "
        "checkpoint step_000001 is damaged: MANIFEST.json is garbled."
    )


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_folder_without_checkpoints_is_a_user_error(tmp_path: Path, folder: str):
    with pytest.raises(UserError, match=r"^there is no checkpoint in "):
        load_latest_checkpoint(tmp_path / folder)


def test_who_asks_for_one_part_does_not_suffer_from_damage_elsewhere(tmp_path: Path):
    save(tmp_path, 1, 1, keep_last=2)
    save(tmp_path, 2, 2, keep_last=2)
    (tmp_path / "step_000002" / "optimizer_g.safetensors").unlink()
    found = load_latest_checkpoint(tmp_path, only=("ema",))
    assert (found.step, list(found.tensors), found.notes) == (2, ["ema"], ())
    flip_a_bit(tmp_path / "step_000002" / "ema.safetensors")
    assert load_latest_checkpoint(tmp_path, only=("ema",)).step == 1


def test_a_part_that_was_never_saved_is_no_damage(tmp_path: Path):
    save(tmp_path / "run" / "checkpoints", 1, 1)
    with pytest.raises(MissingPartError) as error:
        load_latest_checkpoint(tmp_path / "run" / "checkpoints", only=("critic",))
    assert str(error.value) == f"{tmp_path / 'run'} holds no critic."


def test_a_step_that_is_asked_for_is_taken_or_none(tmp_path: Path):
    for step in (1, 2, 3):
        save(tmp_path, step, step, keep_last=3)
    assert load_latest_checkpoint(tmp_path, step=2).step == 2
    flip_a_bit(tmp_path / "step_000002" / "ema.safetensors")
    assert load_latest_checkpoint(tmp_path, ("optimizer_g",), step=2).step == 2
    with pytest.raises(UserError) as error:
        load_latest_checkpoint(tmp_path, step=2)
    damage = "the content of ema.safetensors has changed (its hash differs)"
    whole = f"there is no whole checkpoint of step 2 in {tmp_path}: checkpoint step_000002 is damaged: {damage}."
    assert str(error.value) == whole
    with pytest.raises(UserError, match=rf"^there is no checkpoint of step 4 in {tmp_path}\.$"):
        load_latest_checkpoint(tmp_path, step=4)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
def test_a_file_that_cannot_be_read_just_now_is_not_taken_for_damaged(
    tmp_path: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch
):
    for step in (1, 2):
        save(tmp_path, step, step, keep_last=2)
    unreadable = tmp_path / "step_000002" / name

    def fail(path: Path, *options: object) -> int:
        if path == unreadable:
            raise OSError(number, os.strerror(number), str(path))
        return os_open(path, *options)  # type: ignore[arg-type]

    os_open = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(UserError) as error:
            load_latest_checkpoint(tmp_path)
        remedy = f"Try again; to take the checkpoint before it, remove {tmp_path / 'step_000002'}."
        assert str(error.value) == f"{unreadable} cannot be read: {os.strerror(number)}. {remedy}"
        if name == "ema.safetensors":
            with pytest.raises(UserError, match=rf"^{unreadable} cannot be read: {os.strerror(number)}\.$"):
                read_weights(unreadable)
    assert load_latest_checkpoint(tmp_path).step == 2


def test_an_error_while_a_file_is_read_is_that_of_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    save(tmp_path, 1, 1)
    monkeypatch.setattr(hashlib, "file_digest", fail)
    with pytest.raises(UserError, match=rf"^{tmp_path}/step_000001 cannot be read: Input/output error\. Try again; "):
        load_latest_checkpoint(tmp_path)


def test_loading_changes_nothing_on_the_disk(tmp_path: Path):
    save(tmp_path, 1, 1)
    (tmp_path / "step_000002.tmp").mkdir()  # of a run that is saving at this moment
    load_latest_checkpoint(tmp_path)
    assert names(tmp_path) == ["step_000001", "step_000002.tmp"]


# Retention


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"),
    [
        (1, 0, [70]),
        (3, 0, [50, 60, 70]),
        (2, 30, [30, 60, 70]),
        (1, 20, [20, 40, 60, 70]),
        (99, 0, list(range(10, 80, 10))),
    ],
)
def test_the_last_n_and_each_mth_step_are_kept(tmp_path: Path, keep_last: int, keep_every: int, kept: list[int]):
    for step in range(10, 80, 10):
        save_checkpoint(tmp_path, step, {}, METADATA, keep_last=keep_last, keep_every=keep_every)
    assert names(tmp_path) == [f"step_{step:06d}" for step in kept]


def test_damaged_checkpoints_of_later_steps_do_not_count_among_those_kept(tmp_path: Path):
    for step in (1, 3, 4):
        save(tmp_path, step, step, keep_last=3)
    delete(tmp_path / "step_000003" / "state.json")
    delete(tmp_path / "step_000004" / "state.json")
    assert load_latest_checkpoint(tmp_path).step == 1
    save(tmp_path, 2, 2, keep_last=2)
    assert names(tmp_path) == ["step_000001", "step_000002"]


def test_a_damaged_checkpoint_is_replaced_when_its_step_is_reached_again(tmp_path: Path):
    save(tmp_path, 1, 1, keep_last=2)
    save(tmp_path, 2, 2, keep_last=2)
    delete(tmp_path / "step_000002" / "state.json")
    (tmp_path / "step_000002" / "stray").write_text("")
    save(tmp_path, 2, 2, keep_last=2)
    assert names(tmp_path) == ["step_000001", "step_000002"]
    assert names(tmp_path / "step_000002") == sorted(FILES)
    assert load_latest_checkpoint(tmp_path).step == 2


def test_the_checkpoint_resumed_from_stays_until_a_newer_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, 1, 1)
    seen = []
    write = checkpoints.write_durably
    monkeypatch.setattr(
        checkpoints,
        "write_durably",
        lambda path, data: (seen.append(load_latest_checkpoint(tmp_path).step), write(path, data)),
    )
    save(tmp_path, 2, 2, keep_last=1)
    assert seen == [1, 1, 1, 1]
    assert names(tmp_path) == ["step_000002"]


def test_a_checkpoint_that_cannot_be_removed_does_not_stop_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    save(tmp_path, 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        patch.setattr(checkpoints, "remove_stale_temporaries", lambda folder: None)
        save(tmp_path, 2, 2)
    assert load_latest_checkpoint(tmp_path).step == 2


@pytest.mark.parametrize(("keep_last", "keep_every"), [(0, 0), (-1, 0), (1, -1)])
def test_rejects_keeping_less_than_the_newest(tmp_path: Path, keep_last: int, keep_every: int):
    with pytest.raises(
        ValueError, match=r"^save_checkpoint: `keep_last` must be at least 1 and `keep_every` at least 0"
    ):
        save_checkpoint(tmp_path, 1, {}, METADATA, keep_last=keep_last, keep_every=keep_every)
