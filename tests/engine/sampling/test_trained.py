"""The networks of a run, and the images that they have learned from, as they are found again."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import evaluate
from gan_blocks.engine.sampling import load_for_export, write_converted_run
from gan_blocks.engine.sampling import trained as trained_module
from gan_blocks.engine.sampling.trained import critic_of, load_critic, load_trained
from recipes import biggan_deep
from tests.conftest import TINY_NETWORK, write_tiny_data


@pytest.fixture(scope="module")
def run_of_two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    args = ["--data", f"npz:{write_tiny_data(folder)}", *TINY_NETWORK, "--run-dir", str(folder / "run")]
    assert biggan_deep.RECIPE.main([*args, "--steps", "2", "--checkpoint-every", "1"]) == 0
    return folder / "run"


def damaged(run: Path, part: str, to: Path) -> Path:
    """A copy of a run, with one part of its newest checkpoint torn."""
    shutil.copytree(run, to)
    (to / "checkpoints" / "step_000002" / f"{part}.safetensors").write_bytes(b"torn")
    return to


def test_both_networks_are_of_one_checkpoint(
    run_of_two_checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trained_module, "critic_of", lambda network, seed: network)
    cpu = torch.device("cpu")
    old = damaged(run_of_two_checkpoints, "ema", tmp_path / "old")
    trained = load_trained(run=old, weights=None, device=cpu)
    assert trained.step == 1
    critic = load_critic(trained, old, device=cpu)
    saved = load_file(old / "checkpoints" / "step_000001" / "discriminator.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in critic.state_dict().items())  # type: ignore
    assert load_for_export(old).discriminator is not None

    torn = damaged(run_of_two_checkpoints, "discriminator", tmp_path / "torn")
    trained = load_trained(run=torn, weights=None, device=cpu)
    assert trained.step == 2
    problem = r"^there is no whole checkpoint of step 2 in .*: checkpoint step_000002 is damaged: discriminator\.safe"
    with pytest.raises(UserError, match=problem):
        load_critic(trained, torn, device=cpu)
    with pytest.raises(UserError, match=problem):
        load_for_export(torn)
    optimizer = damaged(run_of_two_checkpoints, "optimizer_g", tmp_path / "optimizer")
    discriminator = load_for_export(optimizer).discriminator
    newest = load_for_export(run_of_two_checkpoints).discriminator
    assert all(torch.equal(value, newest[name]) for name, value in discriminator.items())  # type: ignore


def test_a_converted_run_without_a_discriminator_is_not_damaged(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    trained = load_trained(run=tiny_run, weights=None, device=torch.device("cpu"))
    run = tmp_path / "converted"
    write_converted_run(
        run,
        recipe=trained.recipe.identity,
        config=trained.config,
        layout="other",
        generator=trained.average.state_dict(),
        discriminator=None,
        tables=None,
    )
    capsys.readouterr()
    assert evaluate.main(["--run", str(run), "--num", "6", "--memorization", "6"]) == 2
    assert capsys.readouterr().err == f"evaluate: error: {run} holds no discriminator.\n"
    assert load_for_export(run).discriminator is None


def test_what_was_converted_is_told_of_data_that_the_training_has_not_told_it_of(tiny_run: Path, tmp_path: Path):
    for name in "012":
        (tmp_path / name).mkdir()
        for number in range(20):
            Image.new("L", (24, 16), 10 * number).save(tmp_path / name / f"{number}.png")
    trained = load_trained(run=tiny_run, weights=None, device=torch.device("cpu"))
    assert trained.load_images()[1] == []
    cropped = "cropped 60 of 60 images to the square in their middle"
    folder, (told, change) = f"folder:{tmp_path}", trained.load_images(f"folder:{tmp_path}")[1]
    assert told == cropped
    assert change.startswith(f"{folder} is not what the run has learned from: ")
    # Of released weights nothing is known of the images that they have learned.
    converted = replace(trained, record=None, config=replace(trained.config, data=folder))
    assert converted.load_images()[1] == [cropped]


class Noisy(nn.Module):
    """D with noise in every mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, _labels: Tensor) -> Tensor:
        return (self.weight * images + torch.randn(images.shape)).mean(dim=(1, 2, 3))


def test_the_noise_of_a_critic_is_a_function_of_the_seed_and_of_nobody_elses_draws():
    images, labels, before = torch.zeros(3, 1, 4, 4), torch.zeros(3), torch.get_rng_state()
    first, again, other = (critic_of(Noisy(), seed=seed)(images, labels) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
