"""The spectra of a run: what --spectra-every logs and draws, and that the training does not notice."""

import errno
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gan_blocks.engine.training import spectra
from gan_blocks.engine.training.spectra import sigma_curves
from recipes import biggan_deep


def entries(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def measurements(run: Path) -> list[dict]:
    return [entry for entry in entries(run) if entry.get("event") == "spectra"]


def newest_checkpoint(run: Path) -> Path:
    return max((run / "checkpoints").glob("step_*"))


def test_every_layer_of_both_networks_is_logged_every_n_steps_and_drawn_and_shown_in_the_report(
    tiny_args: list[str], tmp_path: Path
):
    run = tmp_path / "run"
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(run), "--spectra-every", "2"]) == 0
    logged = measurements(run)
    assert [entry["step"] for entry in logged] == [0, 2, 4]
    assert [entry["step"] for entry in entries(run) if "loss_d" in entry] == [1, 2, 3, 4]
    for network in ("generator", "discriminator"):
        saved = load_file(newest_checkpoint(run) / f"{network}.safetensors")
        weights = {
            name.removesuffix(".parametrizations.weight.original").removesuffix(".weight"): tensor.flatten(1)
            for name, tensor in saved.items()
            if name.endswith("weight.original") or name == "embedding.weight"
        }
        assert logged[-1][network].keys() == weights.keys()
        for layer, matrix in weights.items():
            expected = torch.linalg.svdvals(matrix.double())
            found = logged[-1][network][layer]
            assert len(found["sigmas"]) == min(3, len(expected))
            assert found["sigmas"] == pytest.approx(expected[:3].tolist(), abs=2e-3 * expected[0].item())
            assert found["frobenius"] == pytest.approx(matrix.double().norm().item(), rel=1e-4)
    with Image.open(run / "spectra.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 1000
        assert picture.height > 800
    assert 'href="spectra.png"' in (run / "report.html").read_text()


@pytest.mark.slow
def test_measuring_changes_no_bit_of_the_training_and_is_off_by_default(tiny_args: list[str], tmp_path: Path):
    for name, options in (("plain", []), ("measured", ["--spectra-every", "1", "--sample-every", "2"])):
        assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(tmp_path / name), *options]) == 0
    plain, measured = (newest_checkpoint(tmp_path / name) for name in ("plain", "measured"))
    files = sorted(path.name for path in plain.glob("*.safetensors"))
    assert len(files) == 5
    assert all((plain / name).read_bytes() == (measured / name).read_bytes() for name in files)
    assert (tmp_path / "measured" / "spectra.png").is_file()
    assert not (tmp_path / "plain" / "spectra.png").exists()
    assert measurements(tmp_path / "plain") == []
    assert "spectra" not in (tmp_path / "plain" / "report.html").read_text()


@pytest.mark.slow
def test_a_resumed_run_continues_the_curves_of_its_checkpoint(tiny_args: list[str], tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    args = [*tiny_args, "--spectra-every", "1"]
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(whole)]) == 0
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(parts), "--steps", "2"]) == 0
    with (parts / "log.jsonl").open("a") as log:  # a step that a kill took back
        log.write(json.dumps({"event": "spectra", "step": 3, "generator": {}, "discriminator": {}}) + "\n")
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(parts)]) == 0
    for network in ("generator", "discriminator"):
        expected, found = (sigma_curves(entries(run))[network] for run in (whole, parts))
        assert found.steps.tolist() == expected.steps.tolist() == [0, 1, 2, 3, 4]
        assert found.layers == expected.layers
        np.testing.assert_allclose(found.sigmas, expected.sigmas, rtol=3e-3)


@pytest.mark.parametrize("checkpoints", [["step_000002"], []])
def test_a_weight_that_is_not_finite_ends_the_run_with_one_line_and_its_picture(
    checkpoints: list[str],
    tiny_args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    step = biggan_deep.RECIPE.train_step

    def diverging_step(state, batches, config):
        losses = step(state, batches, config)
        if batches.step == 3:
            with torch.no_grad():
                state.generator.stem.parametrizations.weight.original[0, 0] = torch.nan
        return losses

    monkeypatch.setattr(biggan_deep, "RECIPE", replace(biggan_deep.RECIPE, train_step=diverging_step))
    run = tmp_path / "run"
    options = ["--spectra-every", "1", "--checkpoint-every", "2" if checkpoints else "4"]
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(run), *options]) == 2
    message = capfd.readouterr().err.splitlines()[-1]
    start = "biggan_deep: error: a weight is not finite after step 3 (stem.parametrizations.weight.original of the "
    assert message.startswith(f"{start}generator); ")
    kept = "the last good checkpoint, of step 2, is kept in" if checkpoints else "that was before the first checkpoint"
    assert kept in message
    if checkpoints:  # with the command that goes on from there
        program = shlex.split(message.rpartition(" rate: ")[2])
        assert program[1:3] == ["-m", "recipes.biggan_deep"]
        assert program[-4:] == ["--generator-lr", "0.00075", "--discriminator-lr", "0.0005"]
        assert biggan_deep.RECIPE.main([*program[3:], "--steps", "1", "--run-dir", str(tmp_path / "slower")]) == 0
    assert [path.name for path in (run / "checkpoints").iterdir()] == checkpoints
    assert [entry["step"] for entry in measurements(run)] == [0, 1, 2]
    assert (run / "spectra.png").is_file()


def test_a_loss_that_is_not_finite_is_said_before_its_weights_are_measured(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    step = biggan_deep.RECIPE.train_step

    def diverging_step(state, batches, config):
        losses = step(state, batches, config)
        with torch.no_grad():
            next(state.discriminator.parameters()).fill_(torch.nan)
        return {**losses, "loss_g": losses["loss_g"] * torch.nan}

    monkeypatch.setattr(biggan_deep, "RECIPE", replace(biggan_deep.RECIPE, train_step=diverging_step))
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(tmp_path / "run"), "--spectra-every", "1"]) == 2
    assert "error: the loss is not finite at step 1 (" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "name", ["spectra.png", pytest.param("report.html", marks=pytest.mark.slow), "samples/step_000001.png"]
)
def test_a_full_disk_at_a_picture_or_the_report_is_one_line(
    name: str,
    tiny_args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    path = tmp_path / "run" / name

    def full_disk(temporary: Path, data: bytes) -> None:
        if temporary == path.with_name(f".{path.name}.tmp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        temporary.write_bytes(data)

    monkeypatch.setattr("gan_blocks.engine.base.files.write_durably", full_disk)
    args = [*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "1", "--spectra-every", "1"]
    assert biggan_deep.RECIPE.main(args) == 2
    message = capfd.readouterr().err.splitlines()[-1]
    assert message.startswith(f"biggan_deep: error: {path} was not written: the disk ")
    assert list((tmp_path / "run" / "checkpoints").glob("step_*")) == [tmp_path / "run" / "checkpoints" / "step_000001"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--spectra-every", "-1"], "--spectra-every must be at least 0, but got -1."),
        (["--spectra-every", "x"], "--spectra-every"),
    ],
)
def test_bad_intervals_end_with_one_line_and_status_2(args: list[str], message: str, capfd: pytest.CaptureFixture[str]):
    assert biggan_deep.RECIPE.main(args) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_without_matplotlib_it_is_said_before_anything_is_written(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(spectra, "find_spec", lambda name: None)
    run = tmp_path / "run"
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(run), "--spectra-every", "1"]) == 2
    expected = "--spectra-every draws its picture with matplotlib, which is missing: pip install matplotlib."
    assert capfd.readouterr().err == f"biggan_deep: error: {expected}\n"
    assert not run.exists()


def test_starting_a_command_does_not_import_matplotlib():
    program = "import sys, recipes.biggan_deep, gan_blocks.engine.training.loop; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def entry(step: int, *sigmas: list[float]) -> dict:
    layers = {f"layer{number}": {"sigmas": values, "frobenius": 1.0} for number, values in enumerate(sigmas)}
    return {"event": "spectra", "step": step, "generator": layers, "discriminator": {"head": layers["layer0"]}}


def test_curves_skip_other_lines_and_mark_missing_singular_values():
    log = [{"event": "start", "step": 0}, entry(0, [3.0, 2.0, 1.0], [5.0]), {"step": 1, "loss_d": 1.0}]
    curves = sigma_curves([*log, entry(5, [4.0, 2.0, 1.0], [6.0])])
    assert list(curves) == ["generator", "discriminator"]
    assert curves["generator"].layers == ("layer0", "layer1")
    assert curves["generator"].steps.tolist() == [0, 5]
    nan = np.nan
    expected = [[[3, 2, 1], [4, 2, 1]], [[5, nan, nan], [6, nan, nan]]]
    np.testing.assert_array_equal(curves["generator"].sigmas, expected)
    np.testing.assert_array_equal(curves["discriminator"].sigmas, expected[:1])


def test_a_step_that_was_measured_twice_counts_as_measured_last():
    curves = sigma_curves([entry(0, [1.0]), entry(0, [2.0]), entry(1, [3.0])])
    assert curves["generator"].sigmas[0, :, 0].tolist() == [2, 3]


def test_a_log_without_measurements_has_no_curves():
    assert sigma_curves([{"event": "start", "step": 0}, {"step": 1, "loss_d": 1.0}]) == {}
