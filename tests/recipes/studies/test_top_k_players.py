"""Top-k applied to the discriminator: which samples each loss sees."""

import re
from pathlib import Path

import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.config_json import config_to_json
from gan_blocks.engine.recipe.options import RunOptions
from recipes import biggan_deep, sagan
from recipes.studies.top_k_players import PRESETS, RECIPE, Config
from tests.recipes.test_residual_recipes import TINY, TINY_ARGS

LATE = 100  # a step at which k has reached its floor


@pytest.mark.parametrize(("players", "of_d", "of_g"), [("generator", 8, 5), ("discriminator", 5, 8), ("both", 5, 5)])
def test_top_k_is_in_the_losses_that_are_asked_for(players: str, of_d: int, of_g: int, tiny_data: Path):
    config = Config(
        **TINY,
        data=f"npz:{tiny_data}",
        batch_size=8,
        discriminator_steps=1,
        top_k_gamma=0.5,
        top_k_floor=5,
        top_k_players=players,
    )
    run = RunOptions(channels_last=False, precision="fp64")
    state = build_state(RECIPE, config, run)
    images = load_images(config.data, resolution=16, channels=1, num_classes=3)
    source = BatchSource(images, RECIPE.build_prior(config), config, run)
    calls: list[torch.Tensor] = []
    state.discriminator.register_forward_hook(lambda _, args, output: calls.append(output.detach()))
    losses = RECIPE.train_step(state, source.step(LATE), config)
    source.close()
    real, fake = (sorted(logits.tolist(), reverse=True)[:of_d] for logits in calls[0].chunk(2))
    hinge = sum(max(0, 1 - logit) for logit in real) / of_d + sum(max(0, 1 + logit) for logit in fake) / of_d
    assert losses["loss_d"].item() == pytest.approx(hinge)
    best = sorted(calls[1].tolist(), reverse=True)[:of_g]
    assert losses["loss_g"].item() == pytest.approx(-sum(best) / of_g)


def test_top_k_of_the_discriminator_wants_whole_batches(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    args = ["--data", f"npz:{tiny_data}", *TINY_ARGS, "--run-dir", str(tmp_path / "run"), "--accumulate", "2"]
    assert RECIPE.main(args) == 2
    message = "--top-k-players must be generator where a batch is split over micro-batches or processes, but got both."
    assert message in capsys.readouterr().err


def test_a_saved_config_from_before_loads_without_the_field_and_else_names_this_module():
    for recipe in (sagan.RECIPE, biggan_deep.RECIPE):
        today = config_to_json(recipe.config())
        assert recipe.config_from_json({**today, "top_k_players": "generator"}) == recipe.config()
        option = (
            "--top-k-players both, an option that moved to python -m recipes.studies.top_k_players; the version that "
            "made the run still reads it"
        )
        with pytest.raises(UserError, match=f"^{re.escape(f'the saved Config has {option}.')}$"):
            recipe.config_from_json({**today, "top_k_players": "both"})


def test_a_preset_is_that_of_sa_gan():
    assert {name: make().generator_widths for name, make in PRESETS.items()} == {
        name: make().generator_widths for name, make in sagan.PRESETS.items()
    }


def test_k_falls_unless_asked_not_to():
    assert Config().top_k_gamma == 0.99


def test_rejects_players_that_there_are_not():
    with pytest.raises(UserError, match=r"^--top-k-players must be one of generator, discriminator, both, but got"):
        Config(top_k_players="critic")
