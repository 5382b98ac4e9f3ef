import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gan_blocks import NormalPrior
from gan_blocks.engine.commands import evaluate
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.training import evaluator
from recipes import biggan_deep, progan
from tests.conftest import TINY_NETWORK


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "SAMPLES", 12)


class Noisy(nn.Module):
    """G and D of images of 8x8 in one: with noise in every mode, and a frozen part in eval mode for good."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.backbone, self.asked = nn.Dropout().eval(), list[int]()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        self.asked += labels.tolist()
        noise = torch.randn(len(x), 1, 8, 8)
        return noise / 4 if x.dim() == 2 else (self.weight * x + noise).mean(dim=(1, 2, 3))


def some_images(labels: Tensor, *, num_classes: int) -> ImageSet:
    pixels = 40 * labels.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    return ImageSet(lambda numbers: pixels[numbers], labels, tuple(map(str, range(num_classes))), PixelLayout(8, 1))


def test_figures_of_noisy_layers_are_the_same_each_time_and_leave_modes_and_streams_alone(tmp_path: Path):
    config = TrainingConfig(resolution=8, num_classes=3)
    measured = evaluator.Evaluator(some_images(torch.arange(60) % 3, num_classes=3), None, config, tmp_path)
    generator, discriminator = Noisy().eval(), Noisy()
    discriminator.backbone.eval()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        stream = torch.get_rng_state()
        found.append(measured.measure(generator, discriminator, NormalPrior(2)))
        assert torch.equal(torch.get_rng_state(), stream)
    assert found[0] == found[1]
    assert 0 < found[0]["called_real_generated"] < 1
    assert discriminator.training
    assert not discriminator.backbone.training


def test_samples_are_of_the_classes_that_have_images(tmp_path: Path):
    config = TrainingConfig(resolution=8, num_classes=40)
    images = some_images(torch.tensor([3, 5, 30] * 20), num_classes=40)
    generator = Noisy().eval()
    evaluator.Evaluator(images, None, config, tmp_path).measure(generator, Noisy(), NormalPrior(2))
    assert sorted(generator.asked) == [3] * 4 + [5] * 4 + [30] * 4


def trained(data: Path, run: Path, *args: str) -> Path:
    words = ["--data", f"npz:{data}", *TINY_NETWORK, "--run-dir", str(run), "--steps", "2", *args]
    assert biggan_deep.RECIPE.main(words) == 0
    return run


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_evaluating_changes_nothing_of_the_training_and_is_logged_and_drawn(tiny_data: Path, tmp_path: Path):
    plain = trained(tiny_data, tmp_path / "plain", "--hold-out", "0.3")
    found = trained(tiny_data, tmp_path / "evaluated", "--hold-out", "0.3", "--evaluate-every", "1")
    for part in ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d"):
        path = Path("checkpoints") / "step_000002" / f"{part}.safetensors"
        assert (plain / path).read_bytes() == (found / path).read_bytes(), part
    entries = [entry for entry in log(found) if entry.get("event") == "evaluation"]
    assert [entry["step"] for entry in entries] == [1, 2]
    for name in ("training", "held_out", "generated"):
        assert 0 <= entries[0][f"called_real_{name}"] <= 1
    assert entries[1]["frechet_distance"] > entries[1]["frechet_distance_real"] >= 0
    report = (found / "report.html").read_text()
    assert "Share of images that D calls real" in report
    assert "Fréchet distance" in report


def test_held_out_images_are_not_trained_on_and_give_the_floor(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = trained(tiny_data, tmp_path / "run", "--hold-out", "0.3")
    said = capsys.readouterr().err
    assert "42 images of npz:" in said
    assert "18 more images are held out." in said
    args = ["--run", str(run), "--num", "12", "--memorization", "9", "--features", "classifier"]
    assert evaluate.main(args) == 0
    found = json.loads((run / "evaluation.json").read_bytes())
    assert (found["num_real"], found["features"]["held_out"]) == (42, True)
    assert found["features"]["floor_samples"] == 12
    assert [found[f"called_real_{name}"]["images"] for name in ("training", "held_out", "generated")] == [9, 9, 9]
    assert (run / "features").is_dir()


def test_a_run_without_classes_is_asked_what_d_calls_real_alone(tiny_data: Path, tmp_path: Path):
    growing = ["--resolution", "16", "--initial-resolution", "16", "--widths", "6", "5", "4", "--latent-dim", "6"]
    args = ["--data", f"npz:{tiny_data}", *growing, "--batch-size", "8", "--planned-steps", "2", "--sample-every", "0"]
    run = tmp_path / "run"
    assert progan.RECIPE.main([*args, "--run-dir", str(run), "--evaluate-every", "2"]) == 0
    (entry,) = [entry for entry in log(run) if entry.get("event") == "evaluation"]
    assert [name for name in entry if name.startswith("called_real_")] == [
        "called_real_training",
        "called_real_generated",
    ]
    assert "frechet_distance" not in entry


def test_networks_are_evaluated_once_they_have_grown(tiny_data: Path, tmp_path: Path):
    growing = ["--resolution", "16", "--widths", "6", "5", "4", "--latent-dim", "6", "--batch-size", "8"]
    phases = ["--stabilize-images", "8", "--fade-images", "8", "--hold-out", "0.3", "--evaluate-every", "1"]
    words = ["--data", f"npz:{tiny_data}", *growing, *phases, "--steps", "6", "--run-dir", str(tmp_path)]
    assert progan.RECIPE.main(words) == 0
    resolutions = {entry["step"]: entry["resolution"] for entry in log(tmp_path) if "resolution" in entry}
    evaluated = [entry["step"] for entry in log(tmp_path) if entry.get("event") == "evaluation"]
    assert evaluated == [step for step, resolution in resolutions.items() if resolution == 16]
    assert 0 < len(evaluated) < 6


def test_a_share_that_leaves_nothing_is_refused(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--data", f"npz:{tiny_data}", *TINY_NETWORK, "--run-dir", str(tmp_path / "run"), "--hold-out", "1"]
    assert biggan_deep.RECIPE.main(words) == 2
    assert capsys.readouterr().err.endswith("--hold-out must be at least 0 and less than 1, but got 1.0.\n")
