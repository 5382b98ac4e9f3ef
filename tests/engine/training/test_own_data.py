"""Runs on a user's own pictures: what new networks take from them, and what becomes of a run whose pictures change."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.weights import read_weights
from gan_blocks.engine.training import opening
from recipes import biggan_deep, dcgan, sngan

NETWORK = [
    *("--channels", "8", "--generator-widths", "1", "1", "1", "1", "--discriminator-widths", "1", "1", "1", "1"),
    *("--batch-size", "8", "--standing-batches", "2", "--sample-every", "0"),
]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four RGB pictures of each of three classes."""
    rng = np.random.default_rng(0)
    for name in ("cat", "ant", "bee"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path / "set"


def train(*args: object) -> int:
    return sngan.RECIPE.main(list(map(str, args)))


def start(pictures: Path, run: Path, *args: object) -> int:
    return train(*NETWORK, "--data", f"folder:{pictures}", "--run-dir", run, "--steps", 1, *args)


def config(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_bytes())["config"]


def last_line(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err.splitlines()[-1]


def test_channels_and_classes_come_from_the_data_unless_they_are_given(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert start(pictures, tmp_path / "r1") == 0
    assert (config(tmp_path / "r1")["image_channels"], config(tmp_path / "r1")["num_classes"]) == (3, 3)
    said = capfd.readouterr().err
    assert "Taken from the data: --image-channels 3 and --num-classes 3." in said
    assert "classes (and their images): 0 = ant (4), 1 = bee (4), 2 = cat (4)" in said
    assert start(pictures, tmp_path / "r2", "--num_classes=5", "--image-channels", 1) == 0
    assert (config(tmp_path / "r2")["image_channels"], config(tmp_path / "r2")["num_classes"]) == (1, 5)
    assert "Taken from" not in capfd.readouterr().err


def test_the_number_of_a_preset_counts_as_given(pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert dcgan.RECIPE.main(["--data", f"folder:{pictures}", *_SMALL_DCGAN, "--run-dir", str(tmp_path / "r")]) == 0
    assert config(tmp_path / "r")["num_classes"] == 1  # networks without classes
    assert "--image-channels 3." in capfd.readouterr().err


_SMALL_DCGAN = [
    *("--resolution", "16", "--widths", "6", "4", "--latent-dim", "5", "--batch-size", "8"),
    *("--standing-batches", "2", "--steps", "1"),
]


def test_a_flat_folder_trains_networks_without_classes_and_a_batch_beyond_it_is_said(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    args = ["--data", f"folder:{pictures / 'cat'}", *_SMALL_DCGAN, "--run-dir", str(tmp_path / "r")]
    assert dcgan.RECIPE.main(args) == 0
    assert config(tmp_path / "r")["image_channels"] == 3
    assert "A batch of 8 shows each image 2 times; --batch-size makes it smaller.\n" in capfd.readouterr().err


def test_a_run_among_the_images_is_refused(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for run in (pictures, pictures / "runs" / "mine"):
        assert start(pictures, run) == 2
        assert f"--run-dir must lie outside the images in {pictures}, but is {run}" in last_line(capfd)
    monkeypatch.chdir(pictures)
    assert train(*NETWORK, "--data", "folder:.", "--steps", 1) == 2
    assert "--run-dir must lie outside the images in ., but is runs" in last_line(capfd)
    assert sorted(path.name for path in pictures.iterdir()) == ["ant", "bee", "cat"]


def test_classes_are_written_down_and_go_with_the_weights(pictures: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert start(pictures, run) == 0
    data = json.loads((run / "data.json").read_bytes())
    assert (data["source"], data["class_names"]) == (f"folder:{pictures}", ["ant", "bee", "cat"])
    assert data["class_counts"] == [4, 4, 4]
    _, metadata = read_weights(run / "checkpoints" / "step_000001" / "ema.safetensors")
    assert metadata["class_names"] == ["ant", "bee", "cat"]


def test_a_run_whose_classes_changed_is_not_continued(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    assert start(pictures, run, "--num-classes", 4) == 0
    (pictures / "cat").rename(pictures / "aunt")
    assert train("--resume", run, "--steps", 2) == 2
    assert last_line(capfd) == (
        f"sngan: error: folder:{pictures} is not what the run was started with: the classes are others now: cat "
        f"is gone and aunt is new. Give them with --data as they were, or start a new run with --init-from {run}."
    )
    (pictures / "aunt").rename(pictures / "cat")
    shutil.copytree(pictures / "cat", pictures / "aardvark")
    assert train("--resume", run, "--steps", 2) == 2
    assert "aardvark is new" in last_line(capfd)
    assert RunFolder.open(run).saved_steps() == [1]


def test_a_renamed_file_is_said_and_the_run_goes_on(pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert start(pictures, tmp_path / "run") == 0
    (pictures / "ant" / "3.png").rename(pictures / "ant" / "4.png")
    assert train("--resume", tmp_path / "run", "--steps", 2) == 0
    assert "The names or sizes of the data's files are others" in capfd.readouterr().err


def test_data_that_moved_are_remembered_once_their_place_is_given(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    run, moved = tmp_path / "run", tmp_path / "moved"
    monkeypatch.chdir(tmp_path)
    assert train(*NETWORK, "--data", "folder:set", "--run-dir", run, "--steps", 1) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # where there is no folder "set"
    assert train("--resume", run, "--steps", 2) == 0
    pictures.rename(moved)
    capfd.readouterr()
    assert train("--resume", run, "--steps", 3) == 2
    rule = f"folder:{pictures}, the data of this run, is not there: give the new place with --data."
    assert last_line(capfd) == f"sngan: error: {rule}"
    assert train("--resume", run, "--steps", 3, "--data", "folder:../moved") == 0
    shutil.copytree(moved, pictures)  # the old place is there again, with other pictures
    (pictures / "ant" / "0.png").unlink()
    assert train("--resume", run, "--steps", 4) == 0


def test_a_run_of_an_earlier_version_has_its_data_written_down_when_it_goes_on(pictures: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert start(pictures, run) == 0
    written = (run / "data.json").read_bytes()
    (run / "data.json").unlink()
    assert train("--resume", run, "--steps", 2) == 0
    assert (run / "data.json").read_bytes() == written


def test_a_lost_record_of_the_data_lets_no_other_data_in(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    assert start(pictures, run) == 0
    record = json.loads((run / "data.json").read_bytes())
    (run / "data.json").unlink()
    Image.new("RGB", (16, 16)).save(pictures / "ant" / "0.png")
    assert train("--resume", run, "--steps", 2) == 2
    assert last_line(capfd) == (
        f"sngan: error: folder:{pictures} is not what the run was started with: its digest is another (data.json, "
        f"which told in what it differs, is gone). Give them with --data as they were, or start a new run with "
        f"--init-from {run}."
    )
    (run / "data.json").write_text(json.dumps(record | {"class_names": ["bee", "ant", "cat"]}))
    assert train("--resume", run, "--steps", 2) == 2
    rule = f"{run / 'data.json'} was changed since the last checkpoint: put it back, or remove it."
    assert last_line(capfd) == f"sngan: error: {rule}"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"source": 1}', "[" * 100_000])
def test_a_damaged_record_of_the_data_is_one_line(
    text: str, tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text(text)
    assert biggan_deep.RECIPE.main(["--resume", str(tmp_path / "run"), "--steps", "4"]) == 2
    assert f"{tmp_path / 'run' / 'data.json'} is damaged" in last_line(capfd)


def test_a_config_that_was_edited_is_not_continued_with(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    shutil.copytree(tiny_run, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    text = path.read_text()
    for before, after, words in (
        ('"seed": 0', '"seed": 1', "--seed is 1 here, but the run was started with 0."),
        (
            '"preset": "mnist5k-32"',
            '"preset": "cifar10-32"',
            "--preset is cifar10-32 here, but the run was started with another.",
        ),
    ):
        assert before in text
        path.write_text(text.replace(before, after))
        assert biggan_deep.RECIPE.main(["--resume", str(tmp_path / "run"), "--steps", "4"]) == 2
        assert last_line(capfd) == f"biggan_deep: error: {words} {path} was changed since: put it back."


def test_a_run_whose_checkpoints_have_gone_is_not_begun_again(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    assert start(pictures, run) == 0
    log = (run / "log.jsonl").read_bytes()
    shutil.rmtree(run / "checkpoints" / "step_000001")
    for option in ("--resume", "--run-dir"):
        assert (
            train(option, run, *NETWORK, "--data", f"folder:{pictures}", "--num-classes", 3, "--image-channels", 3) == 2
        )
        assert last_line(capfd) == (
            f"sngan: error: the log of {run} tells of a checkpoint of step 1, but there is none. "
            "Bring it back, or name another folder."
        )
    assert (run / "log.jsonl").read_bytes() == log


def test_a_run_that_another_process_begins_meanwhile_is_not_continued_with_other_options(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    run, step = tmp_path / "run", "checkpoints/step_000001"
    assert start(pictures, run) == 0
    (run / step).rename(tmp_path / "aside")
    (run / "log.jsonl").unlink()

    def slowly(config: Any) -> Any:
        (tmp_path / "aside").rename(run / step)
        return load_images_of(config)

    load_images_of = opening.load_images_of
    monkeypatch.setattr(opening, "load_images_of", slowly)
    assert start(pictures, run, "--seed", 1) == 2
    assert last_line(capfd) == (
        f"sngan: error: --seed is 1 here, but the run was started with 0. Another process has begun {run} meanwhile."
    )
    assert RunFolder.open(run).config()["seed"] == 0


def test_what_becomes_of_config_and_data_files_while_a_run_trains_is_not_saved_with_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"
    train_step = sngan.RECIPE.train_step

    def spoiling(*arguments: Any) -> Any:
        (run / "config.json").write_text((run / "config.json").read_text().replace('"seed": 0', '"seed": 1'))
        (run / "data.json").write_text("{")
        return train_step(*arguments)

    monkeypatch.setattr(sngan, "RECIPE", dataclasses.replace(sngan.RECIPE, train_step=spoiling))
    assert start(pictures, run) == 0
    _, metadata = read_weights(run / "checkpoints" / "step_000001" / "ema.safetensors")
    assert metadata["config"]["seed"] == 0
    assert metadata["class_names"] == ["ant", "bee", "cat"]


def test_an_option_that_cannot_change_names_the_way_to_change_it(tiny_run: Path, capfd: pytest.CaptureFixture[str]):
    assert biggan_deep.RECIPE.main(["--resume", str(tiny_run), "--generator-lr", "1e-4"]) == 2
    assert f"To change that, start a new run from its weights: --init-from {tiny_run}." in last_line(capfd)
