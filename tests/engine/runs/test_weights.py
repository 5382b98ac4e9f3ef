import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.runs import weights
from gan_blocks.engine.runs.weights import load_weights, mismatch_error, read_weights, write_weights

METADATA = {"recipe": "recipes.biggan:RECIPE", "preset": "small", "config": {"latent_dim": 64}, "part": "ema"}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_a_weights_file_alone_gives_back_tensors_recipe_and_config(tmp_path: Path):
    state = network().state_dict()
    write_weights(tmp_path / "g.safetensors", state, METADATA)
    tensors, metadata = read_weights(tmp_path / "g.safetensors")
    assert metadata == METADATA
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert [path.name for path in tmp_path.iterdir()] == ["g.safetensors"]


def test_a_folder_whose_name_is_no_utf8_is_read_like_any(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    write_weights(folder / "g.safetensors", {"w": torch.ones(2)}, METADATA)
    tensors, metadata = read_weights(folder / "g.safetensors")
    assert (tensors["w"].tolist(), metadata) == ([1, 1], METADATA)


def test_other_programs_read_the_file_with_safetensors_alone(tmp_path: Path):
    write_weights(tmp_path / "g.safetensors", {"w": torch.ones(2)}, METADATA)
    assert load_file(tmp_path / "g.safetensors")["w"].tolist() == [1, 1]
    with safe_open(tmp_path / "g.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["gan_blocks"])["recipe"] == "recipes.biggan:RECIPE"


def test_tied_and_overlapping_weights_are_written_in_full(tmp_path: Path):
    shared = torch.arange(6.0)
    tensors = {"a": shared, "b": shared, "slice": shared[2:4], "expanded": torch.ones(1).expand(3)}
    write_weights(tmp_path / "g.safetensors", tensors, METADATA)
    saved, _ = read_weights(tmp_path / "g.safetensors")
    assert all(torch.equal(saved[name], tensors[name]) for name in tensors)


def test_writing_replaces_an_older_file_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "g.safetensors"
    write_weights(path, {"w": torch.ones(2)}, METADATA)
    with monkeypatch.context() as patch:
        patch.setattr("gan_blocks.engine.base.files.write_durably", fail)
        with pytest.raises(UserError, match=r"g\.safetensors was not written: the disk mounted at /\S* is full \("):
            write_weights(path, {"w": torch.zeros(2)}, METADATA)
    assert read_weights(path)[0]["w"].tolist() == [1, 1]
    assert list(tmp_path.iterdir()) == [path]
    write_weights(path, {"w": torch.zeros(2)}, METADATA)
    assert read_weights(path)[0]["w"].tolist() == [0, 0]


def test_a_missing_file_or_a_folder_is_a_user_error(tmp_path: Path):
    for path in (tmp_path, tmp_path / "nowhere.safetensors"):
        with pytest.raises(UserError, match=rf"^there is no weights file {path}\.$"):
            read_weights(path)


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_a_truncated_file_is_a_user_error(tmp_path: Path, kept: int):
    path = tmp_path / "g.safetensors"
    write_weights(path, {"w": torch.ones(2)}, METADATA)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"g\.safetensors is not a whole safetensors file: "):
        read_weights(path)


def test_a_pickle_is_refused_unread(tmp_path: Path):
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise AssertionError('the pickle was executed')",)

    torch.save({"w": Bomb()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"model\.pt is not a whole safetensors file: "):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"gan_blocks": "{"}, {"gan_blocks": '{"recipe": "x"}'}])
def test_weights_that_no_recipe_wrote_are_refused(tmp_path: Path, metadata: dict[str, str] | None):
    save_file({"w": torch.ones(2)}, tmp_path / "g.safetensors", metadata)
    with pytest.raises(UserError, match="was not written by a recipe: it does not say which recipe and Config"):
        read_weights(tmp_path / "g.safetensors")


def test_a_manifest_beside_the_file_is_believed_only_for_what_it_lists(tmp_path: Path):
    path, manifest = tmp_path / "g.safetensors", tmp_path / "MANIFEST.json"
    write_weights(path, {"w": torch.ones(2)}, METADATA)
    for harmless in ('{"files": {"other": {"size": 1, "xxh3_128": ""}}}', "garbled"):
        manifest.write_text(harmless)
        assert read_weights(path)[0]["w"].tolist() == [1, 1]
    size = path.stat().st_size
    manifest.write_text(json.dumps({"files": {"g.safetensors": {"size": size, "xxh3_128": "0" * 32}}}))
    with pytest.raises(UserError) as error:
        read_weights(path)
    assert str(error.value) == (f"{path} is damaged: the content of g.safetensors has changed (its hash differs).")


def test_loading_keeps_the_networks_own_dtype_and_memory_format(tmp_path: Path):
    source = network().to(memory_format=torch.channels_last)
    write_weights(tmp_path / "g.safetensors", source.state_dict(), METADATA)
    target = network().double().to(memory_format=torch.channels_last)
    load_weights(target, read_weights(tmp_path / "g.safetensors")[0], "g")
    weight = target[0].weight
    assert weight.dtype == torch.float64
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(weight, source[0].weight.double())


def test_loaded_weights_do_not_depend_on_the_file_any_more(tmp_path: Path):
    path = tmp_path / "g.safetensors"
    write_weights(path, network().state_dict(), METADATA)
    target = network()
    load_weights(target, read_weights(path)[0], "g")
    before = target[0].weight.clone()
    path.write_bytes(b"")
    assert torch.equal(target[0].weight, before)


def test_every_missing_unexpected_and_misshapen_entry_is_named():
    state = network().state_dict()
    del state["1.weight"], state["0.bias"]
    state |= {"2.weight": torch.ones(1), "extra": torch.ones(1), "0.weight": torch.ones(4, 1, 3, 3)}
    state["1.running_mean"] = torch.ones(5)
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_weights(target, state, "ema.safetensors")
    assert str(error.value) == (
        "ema.safetensors does not fit the network it is loaded into; missing keys: 0.bias, 1.weight; "
        "unexpected keys: 2.weight, extra; "
        "wrong shapes: 0.weight (4, 1, 3, 3) instead of (4, 3, 3, 3), 1.running_mean (5,) instead of (4,)."
    )
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


@pytest.mark.parametrize(("more", "fewer"), [("netG.", ""), ("", "generator.")])
def test_a_prefix_of_all_names_is_said_in_place_of_the_names(more: str, fewer: str):
    state = {f"{more}{name}": value for name, value in network().state_dict().items()}
    target = nn.Module()
    target.add_module("generator", network()) if fewer else None
    with pytest.raises(UserError) as error:
        load_weights(target if fewer else network(), {**state, "netG.more": torch.ones(1)}, "G.pth")
    pattern = "have netG. in front, such as netG.0.bias" if more else "lack generator. in front, such as 0.bias"
    start = f"G.pth does not fit the network it is loaded into; {len(state):,} keys {pattern}"
    assert str(error.value) == f"{start}; unexpected keys: netG.more." if more else f"{start}."


def test_long_names_are_shortened():
    with pytest.raises(UserError) as error:
        load_weights(nn.Identity(), {"x" * 5000: torch.ones(1)}, "G.pth")
    assert str(error.value).endswith(f"unexpected keys: {'x' * 100}.")


def test_of_long_lists_the_first_ten_are_named():
    state = {f"{number:02}": torch.ones(1) for number in range(1_014)}
    with pytest.raises(UserError, match=r"unexpected keys: 00, 01, 02, 03, 04, 05, 06, 07, 08, 09 and 1,004 more\.$"):
        load_weights(nn.Identity(), state, "ema.safetensors")


@pytest.mark.parametrize(
    ("absent", "common"),
    [
        (lambda name: name.split(".")[2:3] == ["1"], "of blocks.*.1"),
        (lambda name: name.startswith("blocks.2."), "of blocks.2"),
        (lambda name: name.endswith(".bias"), "that end with bias"),
        (lambda name: name.startswith("blocks.2.1."), None),  # they are few
        (lambda name: name not in ("blocks.0.1.0.bias", "blocks.0.0.0.weight"), None),
    ],
)
def test_what_many_names_have_in_common_is_said(absent: Callable[[str], bool], common: str | None):
    whole = {
        f"blocks.{block}.{part}.{layer}.{kind}": torch.ones(1)
        for block in range(3)
        for part in range(2)
        for layer in range(3)
        for kind in ("weight", "bias")
    }
    whole |= {"linear.bias": torch.ones(1), "linear.weight": torch.ones(1)}
    missing = [name for name in whole if absent(name)]
    found = mismatch_error("G.pth", missing, [], [], fitting=whole.keys() - set(missing))
    said = f"; all {len(missing)} keys {common} are missing; missing keys: "
    assert (said in str(found)) == (common is not None)
    assert ("; all" in str(found)) == (common is not None)
    assert ("; all" in str(mismatch_error("G.pth", [], missing, [], fitting=whole.keys() - set(missing)))) == bool(
        common
    )


def test_all_metadata_is_under_one_key():
    assert weights.METADATA_KEY == "gan_blocks"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path, value: float):
    path, spoiled = tmp_path / "g.safetensors", {"w": torch.tensor([1.0, value])}
    with pytest.raises(UserError, match=r"^1 of 2 values of w in ema are not finite: the training .* diverged\.$"):
        write_weights(path, spoiled, METADATA)
    assert not path.exists()
    path.write_bytes(weights.encode_weights(spoiled, METADATA))
    with pytest.raises(UserError, match=r"^1 of 2 values of w in \S+g\.safetensors are not finite"):
        read_weights(path)
    assert weights.first_not_finite({"extra": spoiled, "counts": {"n": torch.tensor(3)}}) is None
