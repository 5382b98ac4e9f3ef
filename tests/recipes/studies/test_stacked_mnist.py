import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gan_blocks.engine.evaluation.classifier import TrainedClassifier, train_classifier
from gan_blocks.engine.recipe.recipe import Recipe
from recipes import stacked_mnist
from recipes.studies import stacked_mnist as stacked_mnist_study
from recipes.studies.stacked_mnist import Task, measure_numbers, read_numbers

TINY = ["--images", "1000", "--num", "40", "--processes", "1"]


class BrightnessAsClass(nn.Module):
    """Sees the digit d in an image whose pixels are all d / 10."""

    def forward(self, images: Tensor) -> Tensor:
        return -(images.mean(dim=(1, 2, 3))[:, None] - torch.arange(10) / 10).abs()


@pytest.fixture(autouse=True)
def fresh_classifier():
    stacked_mnist_study._classifier.cache_clear()
    yield
    stacked_mnist_study._classifier.cache_clear()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    config = stacked_mnist.Config(generator_widths=(4, 4, 4, 4), latent_dim=4, batch_size=100, standing_batches=2)
    monkeypatch.setitem(stacked_mnist.PRESETS, "gan-k4", lambda: config)
    monkeypatch.setitem(stacked_mnist.PRESETS, "stddev-k4", lambda: replace(config, norm="equalized"))
    monkeypatch.setattr(stacked_mnist_study, "train_classifier", partial(train_classifier, max_steps=3))


@pytest.mark.usefixtures("tiny")
def test_a_study_trains_measures_goes_on_where_it_stopped_and_writes_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trained: list[str] = []

    def train_and_stop(recipe: str, argv: list[str], prog: str) -> int:
        trained.append(Path(argv[-1]).name)
        return real_train(recipe, argv, prog=prog) or (143 if len(trained) == 2 else 0)

    real_train = Recipe.main
    monkeypatch.setattr(Recipe, "main", train_and_stop)
    args = [*TINY, "--methods", "gan", "stddev", "--seeds", "0", "5", "--out", str(tmp_path)]
    assert stacked_mnist_study.main(args) == 143
    first = json.loads((tmp_path / "study.json").read_text())["results"]
    assert list(first) == ["real images", "gan_seed_0"]
    capsys.readouterr()
    monkeypatch.setattr(stacked_mnist_study, "measure_real", None)  # it is measured already
    assert stacked_mnist_study.main(args) == 0
    assert trained == ["gan_seed_0", "stddev_seed_0", "gan_seed_5", "stddev_seed_5"]
    found = json.loads((tmp_path / "study.json").read_text())["results"]
    assert found.items() > first.items()
    config = json.loads((tmp_path / "stddev_seed_5" / "config.json").read_text())
    assert (config["preset"], config["config"]["seed"]) == ("stddev-k4", 5)

    table = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out == table
    title, _, head, _, *rows = table.splitlines()
    assert f"reads {found['real images']['modes']} modes" in title
    assert f"errs on {found['real images']['classifier_error']:.1%} of unseen digits" in title
    assert head == "| method | runs | modes | divergence | modes in the paper | divergence in the paper |"
    assert rows[0].endswith("| 30.6 (20.7) | 5.99 (0.04) |")
    assert rows[1].endswith("| 881.3 (39.2) | 1.09 (0.16) |")
    for method, row in zip(("gan", "stddev"), rows, strict=True):
        cells = row.strip("| ").split(" | ")
        assert cells[:2] == [method, "2"]
        for cell, name in zip(cells[2:4], ("modes", "kl_divergence"), strict=True):
            values = [found[f"{method}_seed_{seed}"][name] for seed in (0, 5)]
            shown = re.fullmatch(r"([\d.]+) \(([\d.]+)\)", cell)
            assert shown is not None
            assert float(shown[1]) == pytest.approx(mean(values), abs=0.051)
            assert float(shown[2]) == pytest.approx(stdev(values), abs=0.051)
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.mode == "RGB"
        assert sheet.width > 16 * 64 > sheet.height > 2 * 64


def test_the_digits_of_a_number_are_read_channel_by_channel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stacked_mnist_study, "_classifier", lambda: TrainedClassifier(BrightnessAsClass(), 1.0))
    digits = torch.tensor([[1, 2, 3], [9, 0, 9], [0, 0, 4]])
    images = (digits / 10)[:, :, None, None].expand(3, 3, 8, 8)
    assert read_numbers(images).tolist() == [123, 909, 4]
    assert measure_numbers(read_numbers(images))["modes"] == 3


@pytest.mark.usefixtures("tiny")
def test_a_run_that_fails_is_named_when_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(Recipe, "main", lambda recipe, argv, prog: 2)
    assert stacked_mnist_study.main([*TINY, "--methods", "gan", "--seeds", "0", "--out", str(tmp_path)]) == 2
    message = f"1 of 1 runs have failed; what they said is in {tmp_path / 'gan_seed_0.txt'}."
    assert capsys.readouterr().err.endswith(f"stacked_mnist: error: {message}\n")


def test_both_sizes_have_the_papers_figures_for_every_preset():
    presets = {f"{method}-{size}" for size, method in stacked_mnist_study.PAPER}
    assert presets == set(stacked_mnist.PRESETS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seeds", "1", "1"], "--seeds must be one or more, each once, but got 1 1."),
        (["--methods", "gan", "gan"], "--methods must be one or more, each once, but got gan gan."),
        (["--images", "999"], "--images must be at least 1000, but got 999."),
        (["--num", "51201"], "--num must be from 16 to 51,200, but got 51201."),
        (["--processes", "0"], "--processes must be at least 1, but got 0."),
    ],
)
def test_rejects_what_cannot_work(args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert stacked_mnist_study.main([*TINY, *args, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"stacked_mnist: error: {message}")
    assert not (tmp_path / "out").exists()


def test_runs_see_equally_many_images_and_growth_takes_the_same_share_of_a_shorter_one():
    options = stacked_mnist_study.Options(images=1_000_000)
    configs = {method: Task(options, method, 0).config for method in ("gan", "wgan-gp", "progression")}
    seen = {method: config.images_before(config.planned_steps + 1) for method, config in configs.items()}
    assert seen == {"gan": 1_000_000, "wgan-gp": 1_000_000, "progression": pytest.approx(1_500_000, abs=320)}
    shortest = Task(stacked_mnist_study.Options(images=1000), "progression", 0).config
    assert shortest.position(shortest.planned_steps).resolution == 32
    assert (configs["progression"].stabilize_images, configs["progression"].fade_images) == (50_000, 200_000)
