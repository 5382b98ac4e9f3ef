"""Top-k training in the recipes' shared update of G."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.recipe.batches import BatchSource, sample_inputs
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.state import TrainingState
from recipes import biggan_deep
from tests.engine.kept_gradients import keep_gradients, kept_gradients

CONFIG = biggan_deep.Config(
    resolution=16,
    num_classes=3,
    channels=8,
    latent_dim=6,
    embedding_dim=5,
    generator_widths=(2, 2, 1),
    discriminator_widths=(1, 2, 2),
    attention_resolution=8,
    batch_size=8,
    discriminator_steps=1,
    top_k_gamma=0.5,
    top_k_floor=5,
)
LATE = 100  # a step at which k has reached its floor


@pytest.fixture
def images_path(tiny_data: Path) -> str:
    return f"npz:{tiny_data}"


def trained_step(
    images_path: str, config: biggan_deep.Config, *, step: int = LATE, frozen: bool = False, **options: object
) -> TrainingState:
    """The state after one training step; ``frozen`` BatchNorm normalizes by its running statistics."""
    config = dataclasses.replace(config, data=images_path)
    run = RunOptions(channels_last=False, **options)
    state = build_state(biggan_deep.RECIPE, config, run)
    keep_gradients(state)
    state.generator.train(not frozen)
    images = load_images(config.data, resolution=16, channels=1, num_classes=3)
    source = BatchSource(images, biggan_deep.RECIPE.build_prior(config), config, run)
    biggan_deep.RECIPE.train_step(state, source.step(step), config)
    source.close()
    return state


def gradients(state: TrainingState) -> dict[str, torch.Tensor]:
    return kept_gradients(state.generator)


def test_while_k_is_the_batch_a_step_is_the_plain_one_to_the_last_bit(images_path: str):
    plain = trained_step(images_path, dataclasses.replace(CONFIG, top_k_gamma=1.0), step=1)
    top_k = trained_step(images_path, CONFIG, step=1)
    for network in ("generator", "discriminator"):
        values = getattr(top_k, network).state_dict()
        for name, value in getattr(plain, network).state_dict().items():
            assert torch.equal(values[name], value), name


def test_the_gradient_is_that_of_the_mean_over_the_best_samples(images_path: str):
    """Against a choice and a mean written out, on D as it is after its update and G as it was before its own."""
    state = trained_step(images_path, CONFIG, precision="fp64", frozen=True)
    config = dataclasses.replace(CONFIG, data=images_path)
    fresh = build_state(biggan_deep.RECIPE, config, RunOptions(precision="fp64", channels_last=False))
    fresh.generator.eval()
    images = load_images(config.data, resolution=16, channels=1, num_classes=3)
    source = BatchSource(images, biggan_deep.RECIPE.build_prior(config), config, RunOptions(precision="fp64"))
    (fake,) = source.step(LATE).generator()
    source.close()
    logits = state.discriminator(fresh.generator(fake.z, fake.labels), fake.labels)
    best = sorted(range(8), key=lambda index: -logits[index].item())[:5]
    loss = -sum(logits[index] for index in best) / 5
    loss.backward()
    expected = dict(fresh.generator.named_parameters())
    for name, gradient in gradients(state).items():
        torch.testing.assert_close(gradient, expected[name].grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_micro_batches_have_the_gradient_of_the_whole_batch(accumulate: int, images_path: str):
    """Eight micro-batches of one sample: those of three dropped samples learn nothing."""
    whole = trained_step(images_path, CONFIG, precision="fp64", frozen=True)
    parts = trained_step(images_path, CONFIG, precision="fp64", frozen=True, accumulate=accumulate)
    expected = gradients(whole)
    for name, gradient in gradients(parts).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)
    config = dataclasses.replace(CONFIG, top_k_gamma=1.0)
    plain = gradients(trained_step(images_path, config, precision="fp64", frozen=True))
    assert not all(torch.allclose(gradient, expected[name]) for name, gradient in plain.items())


def test_scoring_changes_no_state(images_path: str):
    """G's running statistics are those of plain training, which sees the same micro-batches once each."""
    plain = trained_step(images_path, dataclasses.replace(CONFIG, top_k_gamma=1.0), accumulate=4)
    top_k = trained_step(images_path, CONFIG, accumulate=4)
    buffers = dict(top_k.generator.named_buffers())
    running = [name for name in buffers if "running" in name]
    assert running
    for name, value in plain.generator.named_buffers():
        if "running" in name:
            assert torch.equal(buffers[name], value), name


def spoil_class_0(monkeypatch: pytest.MonkeyPatch, module: Any, *, after_steps: int = 0) -> None:
    """Let D's scores of the images of class 0 be NaN in updates of G; before k falls, all images count."""
    build = module.RECIPE.build_discriminator
    updates = itertools.count()

    def spoil(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...], logits: torch.Tensor) -> torch.Tensor:
        if next(network.parameters()).requires_grad or next(updates) < after_steps:
            return logits
        return logits.masked_fill(inputs[1] == 0, torch.nan)

    def build_spoilt(config: Any) -> torch.nn.Module:
        network: torch.nn.Module = build(config)
        network.register_forward_hook(spoil)
        return network

    monkeypatch.setattr(module, "RECIPE", dataclasses.replace(module.RECIPE, build_discriminator=build_spoilt))


@pytest.mark.parametrize("accumulate", [1, 2, 8])
def test_scores_that_are_nan_are_counted_and_not_chosen(
    accumulate: int, images_path: str, monkeypatch: pytest.MonkeyPatch
):
    spoil_class_0(monkeypatch, biggan_deep)
    state = trained_step(images_path, CONFIG, accumulate=accumulate)
    _, labels = sample_inputs(biggan_deep.RECIPE.build_prior(CONFIG), CONFIG, CONFIG.batch_size, LATE, "generator")
    assert state.nan_scores == (labels == 0).sum() > 0
    assert all(gradient.isfinite().all() for gradient in gradients(state).values())


def test_a_run_says_how_many_scores_were_nan(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    spoil_class_0(monkeypatch, biggan_deep, after_steps=1)
    run = tmp_path / "run"
    args = [*tiny_args, "--run-dir", str(run), "--steps", "3", "--log-every", "1", "--top-k-decay-images", "1"]
    assert biggan_deep.RECIPE.main([*args, "--top-k-gamma", "0.5", "--top-k-floor", "0.3"]) == 0
    counts = [json.loads(line).get("nan_scores", 0) for line in (run / "log.jsonl").read_text().splitlines()]
    assert max(counts) > 0
    said = capfd.readouterr().err
    for step, count in enumerate(counts):
        assert (f"{count} generated images have no score but NaN" in said) or not count, step


@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_a_run_ends_with_one_line_when_all_scores_are_nan(
    accumulate: str,
    tiny_args: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(torch.Tensor, "masked_fill", lambda scores, _mask, value: scores * value)
    spoil_class_0(monkeypatch, biggan_deep)
    args = [*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "3", "--top-k-decay-images", "1"]
    args += ["--accumulate", accumulate]
    assert biggan_deep.RECIPE.main([*args, "--top-k-gamma", "0.5", "--top-k-floor", "0.3"]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "D gives no generated image a score but NaN at step" in last


def test_scores_that_cannot_be_ranked_are_not_called_nan(images_path: str, monkeypatch: pytest.MonkeyPatch):
    build = biggan_deep.RECIPE.build_discriminator

    def build_patches(config: Any) -> torch.nn.Module:
        network: torch.nn.Module = build(config)
        network.register_forward_hook(lambda _network, _inputs, logits: logits[:, None].expand(-1, 4))
        return network

    patches = dataclasses.replace(biggan_deep.RECIPE, build_discriminator=build_patches)
    monkeypatch.setattr(biggan_deep, "RECIPE", patches)
    with pytest.raises(ValueError, match=r"must be .*\(batch,\) or \(batch, 1\)"):
        trained_step(images_path, CONFIG, accumulate=2)


def test_k_falls_by_epochs_of_the_real_images_and_is_logged(tiny_args: list[str], tmp_path: Path):
    """60 images, batches of 8, two updates of D a step: an epoch is 3.75 steps."""
    run = tmp_path / "run"
    args = [*tiny_args, "--run-dir", str(run), "--planned-steps", "9", "--discriminator-steps", "2", "--log-every", "1"]
    assert biggan_deep.RECIPE.main([*args, "--top-k-gamma", "0.5", "--top-k-floor", "0.3"]) == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["k"] for line in lines if "k" in line] == [8, 8, 8, 8, 4, 4, 4, 4, 2]


def test_k_falls_as_often_as_asked_for(tiny_args: list[str], tmp_path: Path):
    """Batches of 8, two updates of D a step: k falls after each third of them, whatever the number of images."""
    run = tmp_path / "run"
    args = [*tiny_args, "--run-dir", str(run), "--planned-steps", "7", "--discriminator-steps", "2", "--log-every", "1"]
    top_k = ["--top-k-gamma", "0.5", "--top-k-floor", "0.1", "--top-k-decay-images", "24"]
    assert biggan_deep.RECIPE.main([*args, *top_k]) == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["k"] for line in lines if "k" in line] == [8, 8, 4, 2, 2, 1, 1]


def test_the_whole_batch_is_learned_from_by_default():
    assert biggan_deep.Config().top_k_gamma == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k_gamma": 0.0}, "--top-k-gamma must be greater than 0 and at most 1, but got 0.0."),
        ({"top_k_gamma": 1.5}, "--top-k-gamma must be greater than 0 and at most 1, but got 1.5."),
        ({"top_k_decay_images": -1}, "--top-k-decay-images must be at least 0, but got -1."),
        *(
            (
                {"top_k_floor": floor},
                "--top-k-floor must be a share greater than 0 and at most 1, or a whole number up to the batch of 8, "
                f"but got {floor}.",
            )
            for floor in (0.0, 9, 1.5, np.inf)
        ),
    ],
)
def test_rejects_a_schedule_that_cannot_work(change: dict[str, float], message: str):
    with pytest.raises(UserError) as error:
        dataclasses.replace(CONFIG, **change)
    assert str(error.value) == message
