"""Tensors of a recipe's own, in ``state.extra``."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gan_blocks.engine import (
    StepBatches,
    TrainingState,
)
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.recipe.build import check_extra
from gan_blocks.engine.runs.checkpoints import load_latest_checkpoint
from recipes import sngan
from tests.engine.training.updates import prepared


def test_tensors_of_a_recipes_own_are_saved_and_come_back(
    config: sngan.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain_step = sngan.RECIPE.train_step

    def counting(state: TrainingState, batches: StepBatches, config: sngan.Config) -> dict[str, Tensor]:
        state.extra["seen"] = state.extra.get("seen", torch.zeros(2)) + torch.tensor([1.0, batches.step])
        return {**plain_step(state, batches, config), "seen": state.extra["seen"][1]}

    recipe = dataclasses.replace(sngan.RECIPE, train_step=counting)
    monkeypatch.setattr(sngan, "RECIPE", recipe)  # a recipe has to have a name
    small = ["--resolution", "16", "--num-classes", "3", "--channels", "8", "--latent-dim", "6", "--batch-size", "6"]
    small += ["--generator-widths", "2", "2", "1", "--discriminator-widths", "1", "2", "2", "--sample-every", "0"]
    small += ["--generator-attention", "--discriminator-attention"]
    args = [*small, "--data", config.data, "--standing-batches", "2", "--run-dir", str(tmp_path / "run")]
    assert recipe.main([*args, "--steps", "2"]) == 0
    assert recipe.main([*args, "--steps", "3"]) == 0
    checkpoint = load_latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint.tensors["extra"]["seen"].tolist() == [3.0, 6.0]


def test_what_is_no_tensor_cannot_be_kept(config: sngan.Config):
    state, _ = prepared(config)
    state.extra["count"] = 5
    with pytest.raises(UserError, match=r"^state\.extra must hold tensors by name, but holds 'count': int\.$"):
        check_extra(state)


def test_what_is_kept_lies_where_a_resumed_run_has_it(config: sngan.Config):
    state, _ = prepared(config)
    state.extra.update(count=torch.zeros(2), queue=torch.zeros(2, device="meta"))
    rule = r"on state\.device \(cpu\), where --resume puts them"
    with pytest.raises(UserError, match=rf"^state\.extra must hold tensors {rule}, but queue is on meta\.$"):
        check_extra(state)
