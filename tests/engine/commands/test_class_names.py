"""What every command calls the classes of a run: by the names of the folders that it has learned from."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_blocks.engine.commands import evaluate, neighbors, sample
from gan_blocks.engine.commands.evaluation.images import load_given_images
from gan_blocks.engine.commands.sample import file_names
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.weights import read_weights, write_weights
from gan_blocks.engine.sampling.trained import load_trained

NAMES = ["2", "cat", "dog/wolf"]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """The tiny run, as if its classes had been folders of these names."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    data = json.loads((folder / "data.json").read_bytes())
    (folder / "data.json").write_text(json.dumps({**data, "class_names": NAMES}))
    return folder


def test_classes_are_asked_for_by_name_and_files_are_called_so(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    words = ["--run", str(run), "--num", "3", "--classes", "dog/wolf", "2", "1", "--out"]
    assert sample.main(["grid", *words, str(tmp_path / "named.npz")]) == 0
    assert "--classes 2 is the class of that name, whose number is 0." in capfd.readouterr().out
    with np.load(tmp_path / "named.npz") as arrays:
        assert arrays["labels"].tolist() == [2, 0, 1]
        assert arrays["class_names"].tolist() == NAMES
    assert sample.main(["grid", *words, str(tmp_path / "folder")]) == 0
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        "000000_class_dog_wolf.png",
        "000001_class_2.png",
        "000002_class_cat.png",
    ]
    assert sample.main(["classes", "--run", str(run), "--num", "2", "--out", str(tmp_path / "classes")]) == 0
    assert sorted(path.name for path in (tmp_path / "classes").iterdir()) == [
        "class_2.png",
        "class_cat.png",
        "class_dog_wolf.png",
    ]


def test_samples_in_a_file_are_matched_with_a_folder_by_the_names_of_classes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert sample.main(["--run", str(run), "--classes", "cat", "2", "--num", "12", "--out", "samples.npz"]) == 0
    for number in range(24):  # whose numbers are others: 0 is "2", 1 is "ant", 2 is "cat"
        path = tmp_path / "real" / ("2", "ant", "cat")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), 10 * number, np.uint8)).save(path)
    found = load_given_images("samples.npz", "real", None)
    assert found.config.num_classes == 3
    assert found.images.labels.tolist() == [2] * 6 + [0] * 6
    assert not [note for note in found.notes if "no classes in common" in note]


def test_an_unknown_class_is_one_line(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    for word, rule in (
        ("cats", "names of classes or numbers from 0 to 2, but got cats. Perhaps you meant cat."),
        ("1.5", "names of classes or numbers from 0 to 2, but got 1.5. The names are 2, cat, dog/wolf."),
    ):
        assert sample.main(["--run", str(run), "--classes", word, "--out", str(tmp_path / "x.npz")]) == 2
        assert f"--classes must be {rule}" in capfd.readouterr().err
    assert sample.main(["--run", str(run), "--classes", "7", "--out", str(tmp_path / "x.npz")]) == 2
    assert capfd.readouterr().err == (
        "sample: error: --classes must be names of classes or numbers from 0 to 2, but got 7.\n"
    )


@pytest.mark.slow
def test_captions_and_tables_have_the_names(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    captions: list[list[str]] = []
    monkeypatch.setattr(sample, "save_sheet", lambda *_, captions=None, **__: captions and seen(captions))

    def seen(texts: list[str]) -> None:
        captions.append(texts)

    assert sample.main(["truncation", "--run", str(run), "--columns", "1", "--out", str(tmp_path / "t.png")]) == 0
    assert captions == [NAMES]
    # The data's own names are but the numbers: they are not the run's any more, which is said.
    assert evaluate.main(["--run", str(run), "--num", "12"]) == 0
    said = capfd.readouterr().out
    assert "is not what the run has learned from: the classes are others now" in said
    assert neighbors.main(["--run", str(run), "--num", "2", "--by", "pixels", "--out", str(tmp_path / "n.png")]) == 0
    assert "is not what the run has learned from" in capfd.readouterr().out


def test_weights_alone_know_the_names(run: Path, tmp_path: Path):
    tensors, metadata = read_weights(RunFolder.open(run).newest_checkpoint().path / "ema.safetensors")
    write_weights(tmp_path / "ema.safetensors", tensors, {**metadata, "class_names": NAMES})
    trained = load_trained(run=None, weights=tmp_path / "ema.safetensors", device=torch.device("cpu"))
    assert trained.label_of("cat") == 1
    assert [trained.name_of(label) for label in (0, 2, 5)] == ["2", "dog/wolf", "5"]


def test_names_of_files_are_short_plain_and_each_once(run: Path, tmp_path: Path):
    names = ["a _2", "a*", "a+"]
    data = json.loads((run / "data.json").read_bytes())
    (run / "data.json").write_text(json.dumps({**data, "class_names": names}))
    trained = load_trained(run=run, weights=None, device=torch.device("cpu"))
    assert file_names(trained) == ["a__2", "a_", "a__2_2"]
    apart = dataclasses.replace(trained, class_names=("ä" * 200, "A/B", "a b"))
    assert file_names(apart) == ["ä" * 60, "A_B", "a_b_2"]
    assert apart.label_of("A/B") == 1
    assert dataclasses.replace(trained, class_names=("Ka\u0308se",)).label_of("Käse") == 0
