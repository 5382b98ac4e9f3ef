"""Trainings that run, are interrupted, diverge or fail: what they leave behind, and that they continue bit for bit."""

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

import pytest
import torch

from gan_blocks.engine.base import devices
from gan_blocks.engine.base.interrupts import StopRequest
from gan_blocks.engine.commands import evaluate, sample
from gan_blocks.engine.training import loop
from recipes import biggan_deep


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


def test_a_sheet_takes_no_random_numbers_of_the_training_and_has_the_same_noise_each_time(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    build = biggan_deep.RECIPE.build_generator
    streams: list[torch.Tensor] = []

    def noisy_generator(config):
        network = build(config)
        network.register_forward_hook(lambda _module, _inputs, images: images + torch.rand_like(images))
        return network

    def still_step(state, batches, config):
        streams.append(torch.get_rng_state())
        return {"loss_d": 0.0}

    noisy = replace(biggan_deep.RECIPE, build_generator=noisy_generator, train_step=still_step)
    monkeypatch.setattr(biggan_deep, "RECIPE", noisy)
    args = [*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "3", "--sample-every", "1"]
    assert noisy.main(args) == 0
    sheets = {path.read_bytes() for path in (tmp_path / "run" / "samples").glob("step_00000[12].png")}
    assert len(sheets) == 1
    assert all(torch.equal(stream, streams[0]) for stream in streams)


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


def test_more_threads_than_cores_are_slow_and_said_to_be(monkeypatch: pytest.MonkeyPatch):
    given = []
    monkeypatch.setattr("torch.set_num_threads", given.append)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert devices.use_threads(None) == devices.use_threads(2) == ()
    (note,) = devices.use_threads(3)
    assert note == "--threads 3 is more than there are cores (2), which makes everything many times slower."
    assert given == [2, 3]


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


def test_what_could_not_be_resumed_ends_a_run_after_its_first_step(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    build, step = biggan_deep.RECIPE.build_discriminator, biggan_deep.RECIPE.train_step

    def with_a_queue(config):
        network = build(config)
        network.register_buffer("queue", torch.zeros(0))
        return network

    def growing_step(state, batches, config):
        state.discriminator.queue = torch.zeros(len(state.discriminator.queue) + 1)
        return step(state, batches, config)

    other = replace(biggan_deep.RECIPE, build_discriminator=with_a_queue, train_step=growing_step)
    monkeypatch.setattr(biggan_deep, "RECIPE", other)
    assert other.main([*tiny_args, "--run-dir", str(tmp_path / "run")]) == 2
    message = "error: discriminator could not be resumed: queue was (0,) in torch.float32 before training"
    assert message in capfd.readouterr().err.splitlines()[-1]
    assert (tmp_path / "run" / "log.jsonl").read_text().count("\n") == 1  # the start alone


def test_plain_numbers_are_logged_too(tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = replace(biggan_deep.RECIPE, train_step=lambda state, batches, config: {"loss_d": 0.5, "steps": 3})
    monkeypatch.setattr(biggan_deep, "RECIPE", other)
    assert other.main([*tiny_args, "--run-dir", str(tmp_path / "run"), "--steps", "1"]) == 0
    assert '"loss_d": 0.5, "steps": 3}' in (tmp_path / "run" / "log.jsonl").read_text()
