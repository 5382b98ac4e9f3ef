import json
import math
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gan_blocks.engine.base.parallel.workers import run_tasks
from gan_blocks.engine.recipe.latent import LATENTS
from gan_blocks.engine.recipe.recipe import Recipe
from recipes import biggan_deep
from recipes.studies import latents
from tests.recipes.studies import tiny_latents

TINY = ["--recipe", "biggan_deep", "--preset", "tiny", "--steps", "4", "--measure-every", "2", "--num", "12"]
HERE = ["--processes", "1"]


@pytest.fixture(autouse=True)
def tiny_preset(tiny_data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TINY_DATA", str(tiny_data))
    monkeypatch.setitem(biggan_deep.PRESETS, "tiny", tiny_latents.tiny)
    yield
    latents._judge.cache_clear()


def results(out: Path) -> dict[str, dict[str, float]]:
    path = out / "study.json"
    return json.loads(path.read_text())["results"] if path.is_file() else {}


@pytest.mark.slow
def test_a_study_trains_measures_goes_on_where_it_stopped_and_writes_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trained: list[str] = []

    def train_and_stop(recipe: Recipe, argv: list[str], prog: str) -> int:
        trained.append(Path(argv[-1]).name)
        return real_train(recipe, argv, prog=prog) or (143 if len(trained) == 2 else 0)

    real_train = Recipe.main
    monkeypatch.setattr(Recipe, "main", train_and_stop)
    args = [*TINY, "--latents", "annealed-normal", "--seeds", "0", "1", *HERE, "--out", str(tmp_path)]
    assert latents.main(args) == 143
    first = results(tmp_path)
    assert list(first) == ["annealed-normal_seed_0"]
    *_, head, last = capsys.readouterr().out.splitlines()
    assert head == "Next:"
    assert shlex.split(last)[-len(args) :] == args
    assert latents.main(args) == 0
    assert trained == ["annealed-normal_seed_0", "annealed-normal_seed_1"]
    found = results(tmp_path)
    assert found.items() > first.items()
    assert list(found) == trained
    for name, result in found.items():
        assert list(result["agreement_by_step"]) == ["2", "4"]
        assert result["agreement_by_step"]["4"] == result["agreement"]
        config = json.loads((tmp_path / name / "config.json").read_text())["config"]
        assert (config["latent"], config["planned_steps"]) == ("annealed-normal", 4)
        assert [path.name for path in (tmp_path / name / "checkpoints").iterdir()] == ["step_000004"]

    table = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out == table
    head, _, row = (line.strip("| ").split(" | ") for line in table.splitlines()[2:])
    assert head == ["latent", "runs", "agreement", "diversity", "novelty", "steps to agreement 0.8"]
    assert row[:2] == ["annealed-normal", "2"]
    for cell, name in zip(row[2:5], head[2:5], strict=True):
        one, other = (found[run][name] for run in trained)
        shown = re.fullmatch(r"([\d.]+) \(([\d.]+)\)", cell)
        assert shown is not None
        assert float(shown[1]) == pytest.approx((one + other) / 2, abs=5.1e-4)
        assert float(shown[2]) == pytest.approx(abs(one - other) / 2**0.5, abs=5.1e-4)


@pytest.mark.slow
def test_a_study_killed_with_its_workers_and_typed_again_ends_as_one_that_was_not(tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    args = [*TINY, "--latents", "uniform", "--seeds", "0"]
    assert latents.main([*args, *HERE, "--out", str(whole)]) == 0
    command = [sys.executable, "-m", "tests.recipes.studies.tiny_latents", *args, "--out", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not list(killed.glob("*/checkpoints/step_*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)  # returns when the last of its processes has closed the output
    assert results(killed) == {}
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert results(killed) == results(whole)
    assert (killed / "table.md").read_text() == (whole / "table.md").read_text()


@pytest.mark.slow
def test_a_signal_to_the_command_alone_stops_its_workers_with_a_checkpoint(tmp_path: Path):
    args = [*TINY, "--latents", "uniform", "normal", "--seeds", "0", "--steps", "100000", "--measure-every", "100000"]
    command = [sys.executable, "-m", "tests.recipes.studies.tiny_latents", *args, "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while len(list(tmp_path.glob("*/log.jsonl"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert len(list(tmp_path.glob("*/checkpoints/step_*"))) == 2


def test_the_speed_is_the_first_measured_step_of_each_run_that_got_there():
    slow, fast, never = ({"100": 0.5, "200": last, "300": 0.7} for last in (0.8, 0.9, 0.79))
    fast["100"] = 0.85
    assert [latents.steps_to_reach(0.8, curve) for curve in (slow, fast, never)] == [200, 100, None]
    runs = [{"agreement_by_step": curve} for curve in (slow, fast, never)]
    assert latents._speed(runs[:1]) == "200"
    assert latents._speed(runs[:2]) == "150 (71)"
    assert latents._speed(runs) == "150 (71), in 2 of 3 runs"
    assert latents._speed(runs[2:]) == "not reached"


def test_a_run_that_fails_is_named_when_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail_once(recipe: Recipe, argv: list[str], prog: str) -> int:
        return 2 if "annealed-normal" in argv else real_train(recipe, argv, prog=prog)

    real_train = Recipe.main
    monkeypatch.setattr(Recipe, "main", fail_once)
    args = [*TINY, "--latents", "annealed-normal", "normal", "--seeds", "0"]
    assert latents.main([*args, *HERE, "--out", str(tmp_path)]) == 2
    console = tmp_path / "annealed-normal_seed_0.txt"
    message = f"latents: error: 1 of 2 runs have failed; what they said is in {console}.\n"
    assert capsys.readouterr().err.endswith(message)
    assert list(results(tmp_path)) == ["normal_seed_0"]


def test_all_latents_of_the_paper_are_studied_unless_some_are_named():
    assert latents.Options().latents == tuple(LATENTS)
    assert len(latents.Options().latents) == 11


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seeds", "1", "1"], "--seeds must be one or more, each once, but got 1 1."),
        (["--latents", "normal", "normal"], "--latents must be one or more, each once, but got normal normal."),
        (["--steps", "0"], "--steps must be at least 1, but got 0."),
        (["--measure-every", "3"], "--measure-every must divide --steps 4, but got 3."),
        (["--num", "1"], "--num must be at least 2, but got 1."),
        (["--processes", "0"], "--processes must be at least 1, but got 0."),
        (["--recipe", "nothing"], "there is no recipe nothing: name a registered one ("),
    ],
)
def test_rejects_what_cannot_work(args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert latents.main([*TINY, *args, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"latents: error: {message}")
    assert not (tmp_path / "out").exists()


def test_rejects_a_recipe_without_a_choice_of_latents(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert latents.main(["--recipe", "stacked_mnist", "--preset", "gan-k4", "--out", str(tmp_path / "out")]) == 2
    message = "--recipe must be one whose Config has --latent, but got stacked_mnist."
    assert capsys.readouterr().err == f"latents: error: {message}\n"


# Workers


@pytest.mark.parametrize("processes", [1, 2])
def test_every_task_comes_back_with_its_value(processes: int):
    tasks = [4.0, 9.0, 16.0]
    assert sorted(run_tasks(math.sqrt, tasks, processes=processes)) == [(4, 2), (9, 3), (16, 4)]


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_task_raises_comes_back_too(processes: int):
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        list(run_tasks(math.sqrt, [-1.0], processes=processes))


def test_no_tasks_need_no_process():
    assert list(run_tasks(math.sqrt, [], processes=2)) == []
