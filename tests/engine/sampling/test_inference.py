import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gan_blocks.engine.base import devices
from gan_blocks.engine.commands import evaluate, sample
from gan_blocks.engine.sampling.inference import for_inference
from gan_blocks.engine.sampling.samples import draw_latents, generate, ready_generator, sampling_generator
from gan_blocks.engine.sampling.trained import load_trained


def test_what_is_sampled_from_gives_the_images_of_the_plain_copy(tiny_run: Path):
    trained = load_trained(run=tiny_run, weights=None, device=torch.device("cpu"))
    plain = sampling_generator(trained.average, trained.prior, trained.config)
    z, labels = draw_latents(trained.prior, 5, seed=0), torch.tensor([0, 1, 2, 0, 1])
    expected = generate(plain, z, labels)
    quick = ready_generator(trained)
    assert len(list(quick.modules())) < len(list(plain.modules()))  # folded
    assert (generate(quick, z, labels) - expected).abs().max() < 1e-5


def test_images_in_bf16_differ_by_rounding_alone_and_are_repeated(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def draw(*options: str) -> np.ndarray:
        out = tmp_path / "out.npz"
        assert sample.main(["--run", str(tiny_run), "--num", "6", "--out", str(out), *options]) == 0
        with np.load(out) as arrays:
            return arrays["images"].astype(int)

    exact = draw()
    assert "in bf16" not in capsys.readouterr().out
    rounded = draw("--precision", "bf16")
    assert capsys.readouterr().out.startswith("6 samples in bf16 from ")
    assert not np.array_equal(exact, rounded)
    assert np.abs(exact - rounded).mean() < 2
    assert np.array_equal(draw("--precision", "bf16"), rounded)
    assert np.abs(draw("--precision", "bf16", "--batch-size", "2") - rounded).mean() < 1


def test_weights_are_rounded_once_in_bf16_and_statistics_are_not():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    rounded = for_inference(model, "bf16")
    assert [parameter.dtype for parameter in rounded.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 2


def test_an_evaluation_says_its_precision(tiny_run: Path):
    assert evaluate.main(["--run", str(tiny_run), "--num", "6", "--precision", "bf16"]) == 0
    assert json.loads((tiny_run / "evaluation.json").read_text())["sampling_precision"] == "bf16"


def test_a_precision_that_is_slow_here_is_said_with_all_else_there_is_to_say(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: False)
    quick, slow = (
        load_trained(run=tiny_run, weights=None, device=torch.device("cpu"), precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert (quick.precision, slow.precision) == ("fp32", "bf16")
    assert slow.notes[0].startswith("--precision bf16 is many times slower than fp32 here")
    assert slow.notes[1:] == quick.notes
    capsys.readouterr()
    assert evaluate.main(["--run", str(tiny_run), "--num", "6", "--precision", "bf16"]) == 0
    assert capsys.readouterr().out.count(slow.notes[0]) == 1


def test_another_precision_is_refused(tiny_run: Path, capfd: pytest.CaptureFixture[str]):
    capfd.readouterr()
    assert sample.main(["--run", str(tiny_run), "--precision", "fp16"]) == 2
    assert "--precision" in capfd.readouterr().err
