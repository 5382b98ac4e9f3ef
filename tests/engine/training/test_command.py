"""Whole runs of recipes.biggan_deep on a tiny network: what a user sees when things go well and when they do not."""

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_blocks.engine.base import devices
from gan_blocks.engine.base.command_line import run_command
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.interrupts import StopRequest
from gan_blocks.engine.commands import evaluate, sample
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.runs.checkpoints import save_checkpoint
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.training import loop
from recipes import biggan, biggan_deep, dcgan, sagan, sngan


def weights(run: Path) -> dict[str, bytes]:
    newest = sorted((run / "checkpoints").glob("step_*"))[-1]
    return {path.name: path.read_bytes() for path in sorted(newest.glob("*.safetensors"))}


def launch(args: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "recipes.biggan_deep", *args]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_run_leaves_log_sheet_config_and_checkpoint(tiny_args: list[str], tmp_path: Path):
    run = tmp_path / "run"
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(run), "--sample-every", "2", "--log-every", "3"]) == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines[0]["event"] == "start"
    assert lines[0]["threads"] == torch.get_num_threads()
    assert [line["step"] for line in lines[1:]] == [1, 2, 3, 4, 4]
    assert lines[-1]["event"] == "checkpoint"
    assert 0 < lines[-1]["seconds"] < 600
    assert 0 <= lines[-1]["waiting_for_data"] < 1
    assert set(lines[1]) == {"step", "loss_d", "loss_g", "embedding_norm_median", "embedding_norm_largest"}
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["step_000002.png", "step_000004.png"]
    assert json.loads((run / "config.json").read_text())["config"]["latent_dim"] == 6
    assert set(weights(run)) == {
        f"{name}.safetensors" for name in ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d")
    }


def test_the_networks_may_have_more_classes_than_the_data(tiny_args: list[str], tmp_path: Path):
    run = tmp_path / "run"
    assert biggan_deep.RECIPE.main([*tiny_args, "--num-classes", "5", "--run-dir", str(run), "--steps", "1"]) == 0
    assert (run / "samples" / "step_000001.png").is_file()


@pytest.mark.parametrize(
    "precision", ["fp32", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bf16", "fp64"))]
)
def test_a_run_interrupted_and_continued_has_the_same_bytes_as_one_that_was_not(
    precision: str, tiny_args: list[str], tmp_path: Path
):
    args = [*tiny_args, "--precision", precision]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(whole), "--steps", "4"]) == 0
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(parts), "--steps", "3", "--sample-every", "1"]) == 0
    assert biggan_deep.RECIPE.main(["--resume", str(parts), "--precision", precision, "--steps", "4"]) == 0
    assert weights(whole) == weights(parts)
    lines = [json.loads(line) for line in (parts / "log.jsonl").read_text().splitlines()]
    named = [(line.get("event"), line["step"]) for line in lines]
    losses = [(None, step) for step in (1, 2, 3)]
    assert named == [("start", 0), *losses, ("checkpoint", 3), ("start", 3), (None, 4), ("checkpoint", 4)]


@pytest.mark.slow
def test_a_continued_run_may_begin_to_compute_activations_again_and_keeps_its_bytes(
    tiny_args: list[str], tmp_path: Path
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    args = [*tiny_args, "--r1-penalty", "1"]
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(whole), "--steps", "4"]) == 0
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(parts), "--steps", "2"]) == 0
    assert biggan_deep.RECIPE.main(["--resume", str(parts), "--checkpoint-activations"]) == 0
    assert weights(whole) == weights(parts)


def test_a_run_that_failed_before_its_first_checkpoint_begins_again_with_the_options_of_the_next_call(
    tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    args = [*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "1"]
    assert biggan_deep.RECIPE.main([*args, "--generator-lr", "1e30", "--discriminator-lr", "1e30"]) == 2
    assert not list((tmp_path / "run").glob("checkpoints/step_*"))
    assert biggan_deep.RECIPE.main(args) == 0
    saved = json.loads((tmp_path / "run" / "config.json").read_bytes())
    assert saved["config"]["generator_lr"] == biggan_deep.Config().generator_lr
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if "event" in event] == ["start", "checkpoint"]
    capfd.readouterr()
    assert biggan_deep.RECIPE.main([*args, "--generator-lr", "0.5"]) == 2  # from now on the Config is fixed
    assert "--generator-lr is 0.5 here, but the run was started with" in capfd.readouterr().err


def test_an_unchanged_command_line_continues_the_run_in_its_folder(tiny_args: list[str], tmp_path: Path):
    args = [*tiny_args, "--run-dir", str(tmp_path / "run")]
    assert biggan_deep.RECIPE.main([*args, "--steps", "2"]) == 0
    assert biggan_deep.RECIPE.main(args) == 0
    assert (tmp_path / "run" / "checkpoints" / "step_000004").is_dir()


@pytest.mark.slow
def test_kill_9_at_random_moments_never_loses_the_run(tiny_args: list[str], tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    args = [*tiny_args, "--steps", "12", "--checkpoint-every", "1", "--threads", "1", "--sample-every", "0"]
    assert launch([*args, "--run-dir", str(whole)]).wait() == 0
    moments = random.Random(0)
    for _ in range(3):
        process = launch([*args, "--run-dir", str(killed)])
        while process.poll() is None and not list((killed / "checkpoints").glob("*")):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.wait()
    assert launch([*args, "--run-dir", str(killed)]).wait() == 0
    assert weights(whole) == weights(killed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_stops_after_the_step_with_a_checkpoint(
    number: signal.Signals,
    tiny_args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    step = biggan_deep.RECIPE.train_step

    def interrupted_step(state, batches, config):
        if batches.step == 2:
            os.kill(os.getpid(), number)
        return step(state, batches, config)

    monkeypatch.setattr(biggan_deep, "RECIPE", replace(biggan_deep.RECIPE, train_step=interrupted_step))
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(tmp_path / "run")]) == 128 + number
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_000002"]
    said = capfd.readouterr().err
    assert "Stopped at step 2.\n" in said
    assert re.search(rf"  continue: \S*python -m recipes.biggan_deep --resume {tmp_path / 'run'}\n", said)


def test_minutes_end_a_run_with_a_checkpoint(tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    args = [*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "1000000", "--minutes", "0.01"]
    assert biggan_deep.RECIPE.main(args) == 0
    assert "Time is up at step" in capfd.readouterr().err
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


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


def test_a_signal_that_arrives_while_the_processes_compare_is_not_lost(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compare, calls = loop.largest, []

    def slow_comparison(value: int) -> int:
        calls.append(value)
        agreed = compare(value)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return agreed

    monkeypatch.setattr(loop, "largest", slow_comparison)
    args = [*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "6"]
    assert biggan_deep.RECIPE.main(args) == 128 + signal.SIGTERM
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_000002"]


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--preset", "mnist"],
            "--preset must be one of mnist5k-32, cifar10-32, imagenet-128, ",
        ),
        (["--step", "3"], "Unrecognized options: --step, 3. Perhaps you meant --steps. See --help."),
        (["--qqq", "3"], "Unrecognized options: --qqq, 3. See --help."),
        (["--stepz", "3"], "Unrecognized options: --stepz, 3. Perhaps you meant --steps. See --help."),
        (["--steps", "many"], "--steps must be a whole number, but got many. See --help."),
        (["--minutes", "few"], "--minutes must be a number, but got few. See --help."),
        (["--num-classes", "1.5"], "--num-classes must be a whole number, but got 1.5. See --help."),
        (["--generator-lr", "x"], "--generator-lr must be a number, but got x. See --help."),
        (["--generator-widths", "3", "x"], "--generator-widths cannot be 3, x. See --help."),
        (["--precision", "fp12"], "--precision must be one of fp32, bf16, fp64, but got fp12. See --help."),
        (["--run-dir"], "--run-dir needs a value. See --help."),
        (["--precision", "fp16"], "--precision"),
        (["--steps", "0"], "--steps must be greater than 0, but got 0."),
        (["--threads", "1025"], "--threads must be from 1 to 1,024, but got 1025."),
        (["--accumulate", "200"], "--accumulate must be at most 16, the images of the smallest batch, but got 200."),
        (["--adam-beta1", "1"], "--adam-beta1 must be at least 0 and less than 1, but got 1.0."),
        (["--generator-lr", "inf"], "--generator-lr must be a finite number, but got inf."),
        (["--timeout", "inf"], "--timeout must be a finite number, but got inf."),
        (["--minutes", "nan"], "--minutes must be greater than 0, but got nan."),
        (["--latent-dim", "9" * 25], f"--latent-dim must be a whole number of 64 bits, but got {'9' * 25}."),
        (
            ["--latent-dim", "9223372036854775807"],
            "the networks of these options need more memory than any machine has.",
        ),
        (["--channels", "1000000"], "the networks of these options need"),
        (["--batch-size", "2147483648"], "the images of --batch-size 2,147,483,648 need 35,184 GB or more, but"),
        (["--standing-batches", "9223372036854775807"], "--standing-batches must be at most 1,000,000, but got"),
        (
            ["--run-dir", "a" * 300],
            "--run-dir must be a path of names of at most 255 bytes, 1,000 in all, but got aaaa",
        ),
        (["--resume", "a/" * 800], "--resume must be a path of names of at most 255 bytes, 1,000 in all, but got a/a"),
        (["--run-dir", ""], "--run-dir must not be empty."),
        (["--run-dir="], "--run-dir must not be empty."),
        (["--batch-size", "-1"], "--batch-size must be greater than 0, but got -1."),
        (["--device", "tpu"], "--device must be auto, cpu, cuda or cuda:N, but got tpu."),
        (["--data", "cifar"], "--data"),
        (["--data", "folder:/nowhere"], "--data"),
        (["--resume", "/nowhere"], "/nowhere"),
        (["--run-dir", "/dev/null"], "--run-dir must be a folder, but /dev/null is a file."),
    ],
)
def test_bad_options_end_with_one_line_and_status_2_and_leave_nothing_behind(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert biggan_deep.RECIPE.main(args) == 2
    captured = capfd.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("biggan_deep: error: ")
    assert message in lines[0]
    assert not list(tmp_path.iterdir())


def test_resuming_with_another_architecture_names_the_field(
    tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "1"]) == 0
    capfd.readouterr()
    assert biggan_deep.RECIPE.main(["--resume", str(tmp_path / "run"), "--latent-dim", "7", "--steps", "2"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "--latent-dim is 7 here, but the run was started with 6" in lines[0]


def test_a_damaged_checkpoint_is_passed_over_with_a_word(
    tiny_args: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(run), "--checkpoint-every", "2"]) == 0
    whole = weights(run)
    (run / "checkpoints" / "step_000004" / "ema.safetensors").write_bytes(b"torn")
    capfd.readouterr()
    assert biggan_deep.RECIPE.main(["--resume", str(run)]) == 0
    assert "step_000004" in capfd.readouterr().err
    assert weights(run) == whole


def test_a_full_disk_keeps_the_previous_checkpoint(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    save = loop.save_checkpoint

    def full_disk(directory, step, **arguments):
        if step == 4:
            monkeypatch.setattr(
                "os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device"))
            )
        return save(directory, step, **arguments)

    monkeypatch.setattr(loop, "save_checkpoint", full_disk)
    run = tmp_path / "run"
    assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(run), "--checkpoint-every", "2"]) == 2
    assert "disk" in capfd.readouterr().err.splitlines()[-1]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000002"]


@pytest.mark.slow
def test_options_with_underscores_are_the_same_options(tiny_args: list[str], tmp_path: Path):
    run = str(tmp_path / "run")
    assert biggan_deep.RECIPE.main([*tiny_args, "--run_dir", run, "--steps", "1"]) == 0
    assert biggan_deep.RECIPE.main([f"--run_dir={run}", "--steps", "2"]) == 0
    assert biggan_deep.RECIPE.main(["--init_from", run, "--run-dir", str(tmp_path / "next"), "--steps", "1"]) == 0
    assert RunFolder.open(tmp_path / "next").config() == RunFolder.open(tmp_path / "run").config()


def test_the_error_of_an_option_is_one_line_also_where_boxes_are_of_ascii():
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "recipes.describe", "biggan_deep", "--nonsense"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("describe: error: ")
    assert done.stderr.endswith("See --help.\n")
    assert done.stderr.count("\n") == 1
    assert not re.search(r"--+ ", done.stderr)


@pytest.mark.parametrize("has_instructions", [True, False])
def test_a_cpu_without_instructions_for_bf16_is_said_once_at_the_start(
    has_instructions: bool,
    tiny_args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    note = "--precision bf16 is many times slower than fp32 here: this CPU has no instructions for bfloat16.\n"
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: has_instructions)
    run = str(tmp_path / "run")
    commands = (
        (biggan_deep.RECIPE.main, [*tiny_args, "--run-dir", run, "--steps", "1"]),
        (sample.main, ["--run", run, "--num", "3", "--out", str(tmp_path / "x.npz")]),
        (evaluate.main, ["--run", run, "--num", "6"]),
    )
    for main, words in commands:
        for precision in ("fp32", "bf16") if not has_instructions else ("bf16",):
            more = [] if precision == "fp32" else ["--precision", "bf16"]
            capfd.readouterr()
            assert main([*words, *more]) == 0
            said = "".join(capfd.readouterr())
            assert said.count(note) == (precision == "bf16" and not has_instructions)


def test_ctrl_c_ends_a_command_with_one_line(capfd: pytest.CaptureFixture[str]):
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert run_command("sample", interrupted) == 130
    assert capfd.readouterr().err == "sample: stopped.\n"


class TestConfigOfARun:
    def start(self, *words: str) -> int:
        return biggan_deep.RECIPE.main(["--steps", "1", "--threads", "1", "--sample-every", "0", *words])

    def saved(self, run: Path) -> dict[str, Any]:
        return json.loads((run / "config.json").read_bytes())

    @pytest.mark.parametrize("name", ["config.json", ""])
    def test_a_new_run_has_its_options_but_for_those_that_are_given(self, name: str, tiny_run: Path, tmp_path: Path):
        words = ["--config", str(tiny_run / name), "--seed", "3", "--run-dir", str(tmp_path / "run")]
        assert self.start(*words) == 0
        old, new = self.saved(tiny_run), self.saved(tmp_path / "run")
        assert new["config"] == {**old["config"], "seed": 3, "data": new["config"]["data"]}
        assert new["preset"] == old["preset"] == "mnist5k-32"
        assert not list((tmp_path / "run" / "checkpoints").glob("step_000003"))

    def test_typed_again_it_continues_and_with_another_config_it_is_refused(
        self, tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ):
        words = ["--config", str(tiny_run), "--run-dir", str(tmp_path / "run")]
        assert self.start(*words) == 0
        assert self.start(*words, "--steps", "2") == 0
        other = tmp_path / "other.json"
        other.write_text(json.dumps({**self.saved(tiny_run), "config": {**self.saved(tiny_run)["config"], "seed": 5}}))
        capfd.readouterr()
        assert self.start("--config", str(other), "--run-dir", str(tmp_path / "run")) == 2
        assert "--seed is 5 here, but the run was started with 0." in capfd.readouterr().err

    def test_a_file_of_no_preset_is_named_so(self, tiny_run: Path, tmp_path: Path):
        (tmp_path / "converted.json").write_text(json.dumps({**self.saved(tiny_run), "preset": "converted"}))
        data = self.saved(tiny_run)["config"]["data"]
        words = ["--config", str(tmp_path / "converted.json"), "--data", data, "--run-dir", str(tmp_path / "run")]
        assert self.start(*words) == 0
        assert self.saved(tmp_path / "run")["preset"] == "custom"
        assert biggan_deep.RECIPE.main(["--resume", str(tmp_path / "run"), "--steps", "2"]) == 0

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            (
                {"config": {"depth": 3}},
                "{}: the saved Config has --depth 3, which this version of biggan_deep does not",
            ),
            ({"config": {"batch_size": 0}}, "{}: --batch-size must be greater than 0, but got 0."),
            ({"recipe": "recipes.sngan:RECIPE"}, "{} is of a run of recipes.sngan:RECIPE, not of recipes.biggan_deep:"),
            ({"recipe": 3}, "--config must name the config.json of a run, but {} is damaged: its recipe is not what"),
            (None, "--config must name the config.json of a run, but {} cannot be read: No such file or directory."),
        ],
    )
    def test_what_cannot_be_is_one_line(
        self, changes: dict[str, Any] | None, problem: str, tiny_run: Path, tmp_path: Path, capfd: Any
    ):
        path = tmp_path / "some.json"
        if changes is not None:
            path.write_text(json.dumps(self.saved(tiny_run) | changes))
        capfd.readouterr()
        assert self.start("--config", str(path), "--run-dir", str(tmp_path / "run")) == 2
        said = capfd.readouterr().err
        assert said.startswith(f"biggan_deep: error: {problem.format(path)}")
        assert said.count("\n") == 1
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            (["--preset", "mnist5k-32"], "--config takes the Config of that run, so that --preset has no place beside"),
            (["--resume", "RUN"], "--config starts a run; --resume and --init-from take the options of the run"),
            (["--init-from", "RUN"], "--config starts a run; --resume and --init-from take the options of the run"),
        ],
    )
    def test_it_is_instead_of_a_preset_or_another_run(
        self, words: list[str], problem: str, tiny_run: Path, capfd: pytest.CaptureFixture[str]
    ):
        words = [str(tiny_run) if word == "RUN" else word for word in words]
        assert self.start("--config", str(tiny_run), *words) == 2
        assert capfd.readouterr().err.splitlines()[-1].startswith(f"biggan_deep: error: {problem}")


@dataclasses.dataclass(frozen=True)
class YoungerConfig(biggan_deep.Config):
    """A version with one more option."""

    sharpness: tuple[int, ...] = (3, 4)


def test_options_that_a_run_was_begun_without_or_that_are_gone_are_named_when_it_is_continued(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    old, young = tmp_path / "old", tmp_path / "young"
    preset = {"renamed": lambda: YoungerConfig()}  # and the run's preset is gone
    with monkeypatch.context() as patched:
        assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(old), "--steps", "1"]) == 0
        patched.setattr(
            biggan_deep,
            "RECIPE",
            replace(biggan_deep.RECIPE, config=YoungerConfig, presets=preset),  # type: ignore
        )
        capfd.readouterr()
        assert biggan_deep.RECIPE.main(["--resume", str(old), "--steps", "2"]) == 0
        assert "Younger than the run, and at their defaults: --sharpness 3 4.\n" in capfd.readouterr().err
        assert biggan_deep.RECIPE.main(["--resume", str(old), "--preset", "mnist5k-32", "--steps", "3"]) == 0
        assert biggan_deep.RECIPE.main([*tiny_args, "--run-dir", str(young), "--steps", "1"]) == 0
    capfd.readouterr()
    assert biggan_deep.RECIPE.main(["--resume", str(young)]) == 2
    problem = "the saved Config has --sharpness 3 4, which this version of biggan_deep does not know"
    assert capfd.readouterr().err.startswith(f"biggan_deep: error: {problem}; ")


def test_help_is_a_page_with_every_field_and_default(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        biggan_deep.RECIPE.main(["--help"])
    assert stop.value.code == 0
    page = capsys.readouterr().out
    names = [field.name for kind in (biggan_deep.Config, RunOptions) for field in dataclasses.fields(kind)]
    assert all(f" --{name.replace('_', '-')} " in page.replace("--[no-]", "--") for name in ["preset", *names])
    assert "Appendix B" in page


@pytest.mark.parametrize("recipe", [biggan.RECIPE, biggan_deep.RECIPE, sagan.RECIPE, sngan.RECIPE, dcgan.RECIPE])
def test_help_can_be_read_in_a_minute(recipe: Recipe, capsys: pytest.CaptureFixture[str]):
    for preset in recipe.presets:
        with pytest.raises(SystemExit):
            recipe.main(["--preset", preset, "--help"])
        page = capsys.readouterr().out.splitlines()
        assert len(page) <= 120
        assert max(map(len, page)) <= 80
        assert page[2].split() == [*recipe.command.split(), "train", next(iter(recipe.presets))]
        text = " ".join(page)
        assert "None" not in text
        assert text.count("(default") <= 3  # of options without a value of their own


def test_help_marks_what_a_preset_sets(capsys: pytest.CaptureFixture[str]):
    def marked(*words: str) -> set[str]:
        with pytest.raises(SystemExit):
            biggan.RECIPE.main([*words, "--help"])
        return set(re.findall(r"^\* --(\S+)", capsys.readouterr().out, re.M))

    preset, standard = vars(biggan.PRESETS["cifar10-32"]()), vars(biggan.Config())
    changed = {name.replace("_", "-") for name in standard if preset[name] != standard[name]}
    assert marked("--preset", "cifar10-32") == changed > {"batch-size", "channels"}
    assert marked() == set()


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (None, "but got NoneType."),
        ({"loss_d": "0.5"}, "but loss_d is of str."),
        ({"loss_d": torch.zeros(2, 1)}, "but loss_d is of shape (2, 1)."),
    ],
)
def test_a_step_that_returns_nothing_to_log_ends_with_one_line(
    tiny_args: list[str],
    tmp_path: Path,
    returned: object,
    got: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    other = replace(biggan_deep.RECIPE, train_step=lambda state, batches, config: returned)
    monkeypatch.setattr(biggan_deep, "RECIPE", other)
    assert other.main([*tiny_args, "--run-dir", str(tmp_path / "run")]) == 2
    rule = "train_step must return what to log: a dict of numbers or tensors of one element"
    assert capsys.readouterr().err.endswith(f"biggan_deep: error: {rule}, {got}\n")


def test_networks_whose_layers_do_not_fit_end_with_one_line_and_no_folder(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(7, 16 * 16)

        def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.first(z).unflatten(1, (1, 16, 16))

    other = replace(biggan_deep.RECIPE, build_generator=lambda config: Wide())
    monkeypatch.setattr(biggan_deep, "RECIPE", other)
    assert other.main([*tiny_args, "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("biggan_deep: error: the generator fails in first (Linear), given (2, 6): mat1 and mat2 ")
    assert not (tmp_path / "run").exists()


def test_plain_numbers_are_logged_too(tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = replace(biggan_deep.RECIPE, train_step=lambda state, batches, config: {"loss_d": 0.5, "steps": 3})
    monkeypatch.setattr(biggan_deep, "RECIPE", other)
    assert other.main([*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "1"]) == 0
    assert '"loss_d": 0.5, "steps": 3}' in (tmp_path / "run" / "log.jsonl").read_text()


def test_help_for_a_run_shows_what_the_run_sets(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    for option in ("--resume", "--init-from", "--config"):
        with pytest.raises(SystemExit):
            biggan_deep.RECIPE.main([option, str(tiny_run), "--help"])
        page = capsys.readouterr().out
        assert "* marks what the run sets." in page
        assert "* --batch-size 8" in page
        assert ("--preset" in page) == (option == "--resume")
        assert "fine-tuned" not in page


def test_names_in_a_message_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]):
    def fail() -> int:
        raise UserError("there is no file \x1b[31mred\nline/größe\xa0x.")

    assert run_command("sample", fail) == 2
    assert capsys.readouterr().err == "sample: error: there is no file \\x1b[31mred\\nline/größe\xa0x.\n"


def test_what_a_file_system_refuses_is_one_line_wherever_it_is_asked(capsys: pytest.CaptureFixture[str]):
    def fail() -> int:
        return len(Path("a" * 300).read_bytes())

    assert run_command("sample", fail) == 2
    assert capsys.readouterr().err == f"sample: error: {'a' * 200}...: File name too long.\n"
