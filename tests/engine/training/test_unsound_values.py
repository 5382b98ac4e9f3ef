"""Values that are not finite, in a loss, an update or a checkpoint: never saved, never continued from."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gan_blocks.engine.runs.checkpoints import save_checkpoint
from gan_blocks.engine.runs.folder import RunFolder
from recipes import biggan_deep


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    step = biggan_deep.RECIPE.train_step

    def diverging_step(state, batches, config):
        losses = step(state, batches, config)
        return {**losses, "loss_g": losses["loss_g"] / (0 if batches.step == 3 else 1)}

    monkeypatch.setattr(biggan_deep, "RECIPE", replace(biggan_deep.RECIPE, train_step=diverging_step))
    run = tmp_path / "run"
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(run), "--checkpoint-every", "2"]) == 2
    message = capfd.readouterr().err.splitlines()[-1]
    assert message.startswith("biggan_deep: error: the loss is not finite at step 3 (loss_d ")
    assert "the last good checkpoint, of step 2, is kept" in message
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000002"]


def spoil(state: Any, part: str) -> None:
    """Make one value of a training's state infinite."""
    tensors = {
        "generator": lambda: next(state.generator.parameters()).data,
        "ema": lambda: next(state.ema.module.parameters()).data,
        "running statistics": lambda: next(b for n, b in state.generator.named_buffers() if n.endswith("running_var")),
        "optimizer_d": lambda: next(iter(state.optimizer_d.state.values()))["exp_avg_sq"],
    }
    tensors[part]().view(-1)[0] = float("inf")


@pytest.mark.parametrize("part", ["generator", "ema", "running statistics", "optimizer_d"])
def test_an_update_that_spoils_a_weight_is_not_saved_and_the_run_goes_on_from_before(
    part: str, tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    step, run = biggan_deep.RECIPE.train_step, tmp_path / "run"

    def spoiling_step(state, batches, config):
        losses = step(state, batches, config)
        if batches.step == 4:
            spoil(state, part)
        return losses

    with monkeypatch.context() as patched:
        patched.setattr(biggan_deep, "RECIPE", replace(biggan_deep.RECIPE, train_step=spoiling_step))
        args = [*tiny_args, "--run-dir", str(run), "--checkpoint-every", "2", "--steps", "4", "--sample-every", "0"]
        assert biggan_deep.RECIPE.main(args) == 2
    said = capfd.readouterr().err
    assert re.search(
        r"error: 1 of [\d,]+ values of \S+ in \w+ are not finite after step 4; the last good checkpoint", said
    )
    assert "Done" not in said
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000002"]
    assert biggan_deep.RECIPE.main(["--resume", str(run), "--steps", "4"]) == 0


def test_a_checkpoint_with_a_value_that_is_not_finite_is_passed_over(
    tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    args = [*tiny_args, "--run-dir", str(run), "--checkpoint-every", "2", "--steps", "4"]
    assert biggan_deep.RECIPE.main(args) == 0
    folder = RunFolder.open(run)
    tensors = {
        part: {n: t.clone() for n, t in state.items()} for part, state in folder.newest_checkpoint().tensors.items()
    }
    next(iter(tensors["ema"].values())).view(-1)[0] = float("nan")
    save_checkpoint(folder.checkpoints, 4, tensors, folder.metadata(), keep_last=2)  # written by an older version
    capfd.readouterr()
    assert biggan_deep.RECIPE.main(["--resume", str(run), "--steps", "4", "--checkpoint-every", "2"]) == 0
    said = capfd.readouterr().err
    assert re.search(r"step_000004 is damaged: 1 of [\d,]+ values of \S+ in ema are not finite; taking the one", said)
    assert folder.newest_checkpoint().step == 4
