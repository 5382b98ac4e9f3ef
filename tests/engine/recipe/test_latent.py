"""The latent fields of a Config: the priors that they name, in the batches of a training and in samples of a run."""

import dataclasses
import json
import typing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_blocks import (
    AnnealedNormalPrior,
    BernoulliPrior,
    CategoricalPrior,
    CensoredNormalPrior,
    NormalBernoulliPrior,
    NormalPrior,
    Prior,
    RademacherPrior,
    SphericalPrior,
    SpikeAndSlabPrior,
    UniformPrior,
    VariableVariancePrior,
)
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import sample
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.config_json import config_to_json
from gan_blocks.engine.recipe.latent import LATENTS, LatentName, latent_prior
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.registry import find_recipe
from recipes import biggan, biggan_deep, sagan, sngan

EXPECTED: dict[str, Prior] = {
    "normal": NormalPrior(8),
    "uniform": UniformPrior(8),
    "bernoulli": BernoulliPrior(8),
    "censored-normal": CensoredNormalPrior(8),
    "rademacher": RademacherPrior(8),
    "categorical": CategoricalPrior(8),
    "spike-and-slab": SpikeAndSlabPrior(8),
    "normal-bernoulli": NormalBernoulliPrior(8),
    "annealed-normal": AnnealedNormalPrior(8, milestones=((0, 2.0), (100, 1.0))),
    "variable-variance": VariableVariancePrior(8, lowest_variance=0.5, highest_variance=1.5),
    "spherical": SphericalPrior(8),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_name_stands_for_its_prior(name: LatentName):
    config = biggan_deep.Config(latent=name, latent_dim=8, planned_steps=100)
    assert biggan_deep.RECIPE.build_prior(config) == EXPECTED[name]


def test_every_prior_has_a_name_and_every_name_a_prior():
    assert list(LATENTS) == list(EXPECTED) == list(typing.get_args(LatentName))


@pytest.mark.parametrize("recipe", [biggan, biggan_deep, sagan, sngan], ids=lambda recipe: recipe.__name__)
def test_every_class_conditional_recipe_offers_the_choice_and_starts_with_the_normal(recipe):
    default = recipe.PRESETS["mnist5k-32"]()
    assert recipe.RECIPE.build_prior(default) == NormalPrior(default.latent_dim)
    assert recipe.RECIPE.build_prior(replace(default, latent="bernoulli")) == BernoulliPrior(default.latent_dim)


def test_a_config_saved_before_there_was_a_choice_means_the_standard_normal():
    recipe = find_recipe("biggan_deep")
    saved = config_to_json(biggan_deep.Config(latent_dim=6))
    for field in ("latent", "annealed_variances", "variable_variances"):
        del saved[field]
    assert recipe.build_prior(recipe.config_from_json(saved)) == NormalPrior(6)


def test_a_config_survives_json_with_its_latent_fields():
    config = biggan_deep.Config(latent="annealed-normal", annealed_variances=(3.0, 2.0, 1.0))
    restored = find_recipe("biggan_deep").config_from_json(json.loads(json.dumps(config_to_json(config))))
    assert restored == config
    assert hash(latent_prior(restored)) == hash(latent_prior(config))  # lists inside would have none


def test_the_variances_of_an_annealed_prior_are_spread_over_the_planned_steps():
    config = biggan_deep.Config(latent="annealed-normal", annealed_variances=(4.0, 2.0, 1.0), planned_steps=100)
    prior = latent_prior(config)
    variances = [prior.at(step).variance[0].item() for step in (0, 25, 50, 75, 100, 500)]
    assert variances == pytest.approx([4, 3, 2, 1.5, 1, 1], rel=1e-12)


def test_a_run_shorter_than_its_variances_ends_with_the_last():
    config = biggan_deep.Config(latent="annealed-normal", annealed_variances=(4.0, 3.0, 2.0, 1.0), planned_steps=1)
    assert latent_prior(config).at(1).variance[0] == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latent": "gaussian"}, f"--latent must be one of {', '.join(EXPECTED)}, but got gaussian."),
        ({"latent_dim": 0}, "--latent-dim must be greater than 0, but got 0."),
        (
            {"latent": "normal-bernoulli", "latent_dim": 7},
            "--latent-dim must be even beside --latent normal-bernoulli, but got 7.",
        ),
        (
            {"annealed_variances": (1.0,)},
            "--annealed-variances must be two or more numbers greater than 0, but got 1.0.",
        ),
        (
            {"annealed_variances": (float("inf"), 1.0)},
            "--annealed-variances must be two or more finite numbers, but got inf 1.0.",
        ),
        (
            {"variable_variances": (1.5, 0.5)},
            "--variable-variances must be two finite numbers, the smaller one first, but got 1.5 0.5.",
        ),
    ],
)
@pytest.mark.parametrize("recipe", [biggan_deep, sagan], ids=lambda recipe: recipe.__name__)
def test_latent_fields_that_cannot_work_are_named(recipe, fields: dict[str, object], message: str):
    with pytest.raises(UserError) as caught:
        recipe.Config(**fields)
    assert str(caught.value) == message


# In a training


def test_the_batches_of_a_step_are_drawn_from_the_prior_of_that_step(tmp_path: Path):
    """The same numbers, scaled: the streams are those of the normal prior."""
    np.savez(tmp_path / "data.npz", images=np.zeros((4, 16, 16, 1), np.uint8), labels=np.arange(4) % 2)
    images = load_images(f"npz:{tmp_path / 'data.npz'}", resolution=16, channels=1, num_classes=2)
    config = biggan_deep.Config(annealed_variances=(4.0, 1.0), planned_steps=30, batch_size=3)

    def draws(latent: LatentName, step: int) -> list[torch.Tensor]:
        asked = replace(config, latent=latent)
        source = BatchSource(images, latent_prior(asked), asked, RunOptions(device="cpu"))
        batches = source.step(step)
        pairs = [part for number in (0, 1) for part in batches.discriminator(number)]
        source.close()
        return [*(part.fake.z for part in pairs), *(part.z for part in batches.generator())]

    for step, variance in ((10, 3.0), (20, 2.0), (30, 1.0), (40, 1.0)):
        for annealed, plain in zip(draws("annealed-normal", step), draws("normal", step), strict=True):
            assert torch.allclose(annealed, plain * variance**0.5, rtol=1e-6)


@pytest.mark.parametrize(
    "latent", [pytest.param(name, marks=pytest.mark.slow) for name in ("annealed-normal", "bernoulli")]
)
def test_a_run_interrupted_and_continued_has_the_same_bytes_as_one_that_was_not(
    latent: str, tiny_args: list[str], tmp_path: Path
):
    args, whole, parts = [*tiny_args, "--latent", latent], tmp_path / "whole", tmp_path / "parts"
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(whole), "--steps", "4"]) == 0
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(parts), "--steps", "2"]) == 0
    assert biggan_deep.RECIPE.main(["--resume", str(parts), "--steps", "4"]) == 0
    for name in ("generator", "ema"):
        file = Path("checkpoints", "step_000004", f"{name}.safetensors")
        assert (whole / file).read_bytes() == (parts / file).read_bytes()


@pytest.mark.slow
def test_a_run_is_not_continued_with_another_latent(
    tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    args = [*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "1"]
    assert biggan_deep.RECIPE.main(args) == 0
    capfd.readouterr()
    assert biggan_deep.RECIPE.main([*args, "--latent", "uniform"]) == 2
    assert "--latent is uniform here, but the run was started with normal" in capfd.readouterr().err


def test_only_normal_latents_can_be_truncated(tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    for latent, status in (("annealed-normal", 0), ("censored-normal", 2)):
        run = tmp_path / latent
        assert biggan_deep.RECIPE.main([*tiny_args, "--latent", latent, "--run-dir", str(run), "--steps", "1"]) == 0
        capfd.readouterr()
        options = ["--run", str(run), "--num", "3", "--truncation", "0.5", "--out", str(run / "out.npz")]
        assert sample.main(options) == status
    assert capfd.readouterr().err == "sample: error: --truncation works for a normal latent only.\n"


def test_the_help_names_every_distribution(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        biggan_deep.RECIPE.main(["--help"])
    words = " ".join(capfd.readouterr().out.split())
    assert f"can be truncated: {', '.join(LATENTS)}." in words
    fields = {field.name for field in dataclasses.fields(biggan_deep.Config)}
    assert {"latent", "latent_dim", "annealed_variances", "variable_variances"} <= fields
