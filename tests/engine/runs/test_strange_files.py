"""Files in the folder of a run that are not what was written: one line, or the checkpoint before, never a traceback."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.runs.checkpoints import STATE_NAME
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.manifest import MANIFEST_NAME, encode_manifest, manifest_entry
from gan_blocks.engine.runs.report import write_report
from gan_blocks.engine.runs.weights import load_weights
from recipes import biggan_deep

DEEP = "[" * 100_000


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A run with two checkpoints, of steps 3 and 4."""
    path = tmp_path / "copy"
    shutil.copytree(tiny_run, path)
    RunFolder.open(path).save(4, RunFolder.open(path).newest_checkpoint().tensors, keep_last=2)
    return path


def resume(run: Path) -> int:
    return biggan_deep.RECIPE.main(["--resume", str(run), "--steps", "4"])


def replace_file(run: Path, name: str, content: bytes) -> None:
    """Replace a file of the newest checkpoint, and let the manifest agree with it."""
    folder = run / "checkpoints" / "step_000004"
    (folder / name).write_bytes(content)
    files = json.loads((folder / MANIFEST_NAME).read_bytes())["files"]
    (folder / MANIFEST_NAME).write_bytes(encode_manifest({**files, name: manifest_entry(content)}))


STATES: list[Any] = [
    {},
    [],
    None,
    {"step": "4", "parts": ["ema"]},
    {"step": 4.0, "parts": ["ema"]},
    {"step": -4, "parts": ["ema"]},
    {"step": 3, "parts": ["ema"]},
    {"step": 1_000_000_000, "parts": ["ema"]},
    {"step": 4},
    {"step": 4, "parts": []},
    {"step": 4, "parts": "ema"},
    {"step": 4, "parts": ["../../../elsewhere"]},
    {"step": 4, "parts": [["ema"]]},
    {"step": 4, "parts": ["unknown"]},
]


@pytest.mark.parametrize("state", [*STATES, DEEP, "{"], ids=lambda state: str(state)[:30])
def test_a_state_that_is_strange_makes_a_checkpoint_a_damaged_one(run: Path, state: Any):
    text = state if state in (DEEP, "{") else json.dumps(state)
    replace_file(run, STATE_NAME, text.encode())
    checkpoint = RunFolder.open(run).newest_checkpoint()
    assert checkpoint.step == 3
    assert "step_000004 is damaged" in checkpoint.notes[0]


@pytest.mark.parametrize("content", [b"", b"x" * 100, (2**40).to_bytes(8, "little") + b"{}"])
def test_weights_that_are_none_but_agree_with_the_manifest_are_damaged(run: Path, content: bytes):
    replace_file(run, "ema.safetensors", content)
    for only in (None, ("ema",)):
        assert RunFolder.open(run).newest_checkpoint(only).step == 3


def test_a_file_of_another_part_or_step_makes_a_checkpoint_a_damaged_one(run: Path):
    folder = run / "checkpoints" / "step_000004"
    generator = (folder / "generator.safetensors").read_bytes()
    for content in ((folder / "ema.safetensors").read_bytes(), generator.replace(b'\\"step\\": 4', b'\\"step\\": 3')):
        assert content != generator
        replace_file(run, "generator.safetensors", content)
        checkpoint = RunFolder.open(run).newest_checkpoint()
        assert checkpoint.step == 3
        assert "generator.safetensors says that it is the " in checkpoint.notes[0]


@pytest.mark.parametrize("text", [DEEP, "null", "[]", '{"files": []}', '{"files": {"ema.safetensors": 3}}'])
def test_a_manifest_that_is_strange_makes_a_checkpoint_a_damaged_one(run: Path, text: str):
    (run / "checkpoints" / "step_000004" / MANIFEST_NAME).write_text(text)
    assert RunFolder.open(run).newest_checkpoint().step == 3


CONFIGS: list[Callable[[dict[str, Any]], Any]] = [
    lambda saved: {**saved, "config": []},
    lambda saved: {**saved, "config": None},
    lambda saved: {**saved, "preset": [1]},
    lambda saved: {**saved, "preset": None},
    lambda saved: {**saved, "recipe": 3},
    lambda saved: [saved],
    lambda saved: {**saved, "config": {**saved["config"], "ema_decay": "1"}},
    lambda saved: {**saved, "config": {**saved["config"], "generator_widths": "x"}},
    lambda saved: {**saved, "config": {**saved["config"], "seed": False}},
    lambda saved: {**saved, "config": {**saved["config"], "data": {}}},
]


@pytest.mark.parametrize("change", CONFIGS)
def test_a_config_that_is_strange_is_one_line(
    run: Path, change: Callable[[dict[str, Any]], Any], capfd: pytest.CaptureFixture[str]
):
    path = run / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_bytes()))))
    assert resume(run) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("biggan_deep: error: ")


LINES = [
    '{"step": "x"}',
    '{"step": null}',
    '{"step": [1]}',
    '{"step": -1}',
    '{"event": "checkpoint", "step": 3}',
    "[1]",
    DEEP,
]
LINES += ['{"event": "checkpoint", "step": 3, "seconds": "x"}']


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[:30])
def test_a_line_of_the_log_that_is_strange_is_removed_when_the_run_goes_on(run: Path, line: str):
    log = run / "log.jsonl"
    log.write_text(f"{line}\n{log.read_text()}")
    with pytest.raises(UserError, match=r"^line 1 of \S+ is damaged: it"):
        RunFolder.open(run).read_log()
    RunFolder.open(run).truncate_log(after_step=3)
    assert RunFolder.open(run).trained_seconds() >= 0


@pytest.mark.parametrize("value", ["x", [1], {}, None])
def test_a_report_leaves_out_what_it_cannot_draw(run: Path, value: Any):
    folder = RunFolder.open(run)
    folder.append_log({"step": 3, "loss_d": value, "loss_g": 1.0})
    for text in ("[]", "{", '"x"', DEEP):
        folder.evaluation_path.write_text(text)
        write_report(folder)
        assert "evaluation.json is damaged" in folder.report_path.read_text()


def test_a_copied_sheet_is_no_sheet_of_a_step(run: Path):
    folder = RunFolder.open(run)
    newest = folder.newest_samples()
    assert newest is not None
    for name in ("step_000099 copy.png", "step_.png", "step_1e9.png"):
        shutil.copy(newest, newest.with_name(name))
    assert folder.newest_samples() == newest


def test_weights_of_another_kind_are_named(tiny_run: Path):
    folder = RunFolder.open(tiny_run)
    network = biggan_deep.RECIPE.build_generator(biggan_deep.RECIPE.config_from_json(folder.config()))
    tensors = dict(network.state_dict())
    name = next(name for name, value in tensors.items() if value.dim() > 1)

    for dtype in (torch.int32, torch.bool, torch.complex64):
        with pytest.raises(UserError, match=f"wrong shapes: {name} in {dtype} instead of torch.float32"):
            load_weights(network, {**tensors, name: tensors[name].to(dtype)}, "it")
    load_weights(network, {**tensors, name: tensors[name].half()}, "it")


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", [MANIFEST_NAME, STATE_NAME, "ema.safetensors", "optimizer_g.safetensors"])
def test_what_is_no_file_makes_a_checkpoint_a_damaged_one(run: Path, name: str, kind: str):
    put_no_file(run / "checkpoints" / "step_000004" / name, kind)
    checkpoint = RunFolder.open(run).newest_checkpoint()
    assert checkpoint.step == 3
    assert "it is no regular file" in checkpoint.notes[0]


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", ["config.json", "data.json", "log.jsonl", ".lock"])
def test_what_is_no_file_in_a_run_folder_is_one_line(
    run: Path, name: str, kind: str, capfd: pytest.CaptureFixture[str]
):
    put_no_file(run / name, kind)
    assert resume(run) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("biggan_deep: error: ")
    assert str(run) in said.splitlines()[-1]


def put_no_file(path: Path, kind: str) -> None:
    """Put a pipe, or a link to a device without an end, in the place of a file: who reads it never ends."""
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


def test_a_file_in_the_place_of_a_checkpoint_or_of_what_is_written_first_is_said_and_no_hindrance(
    run: Path, capfd: pytest.CaptureFixture[str]
):
    newest = run / "checkpoints" / "step_000004"
    shutil.rmtree(newest)
    newest.write_text("a file")
    newest.with_name("step_000004.tmp").write_text("another")
    checkpoint = RunFolder.open(run).newest_checkpoint()
    assert checkpoint.step == 3
    assert checkpoint.notes == ("checkpoint step_000004 is damaged: it is no folder; taking the one before it.",)
    assert resume(run) == 0
    assert "Done at step 4" in capfd.readouterr().err
    assert RunFolder.open(run).newest_checkpoint().step == 4
