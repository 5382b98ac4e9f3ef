"""The study of the settings that Sinha et al. 2020 leave out: what it trains, what it chooses, how it goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gan_blocks.engine import UserError
from recipes import mixture_of_gaussians as mixture
from recipes.mixtures import baseline, session
from recipes.mixtures.baseline import StudyStoppedError, study_baseline
from recipes.mixtures.config import Config

NO_STOP = SimpleNamespace(signal=0)
Trained = list[tuple[str, Config]]


def pretended(
    trained: Trained,
    score: Callable[[str, Config], tuple[float, float] | None] = lambda *_: (50.0, 80.0),
    step: int = 0,
):
    """Opens runs that are done at once, each with one score for all seeds; None: stopped by a signal."""

    def open_session(config: Config, options: mixture.Options, folder: Path) -> SimpleNamespace:
        def carry_out(stop: object) -> dict[str, list[list[float]]] | None:
            scores = score(folder.name, config)
            if scores is None:
                return None
            trained.append((f"{folder.name} to {options.steps}", config))
            return {
                name: [[value] * config.seeds]
                for name, value in zip(("high_quality", "recovered"), scores, strict=True)
            }

        return SimpleNamespace(step=step, carry_out=carry_out)

    return open_session


def study(folder: Path, open_session: object, **options: int) -> str:
    config = Config(hidden_units=8)
    return study_baseline(config, mixture.Options(**options), folder, session=open_session, stop=NO_STOP).read_text()


@pytest.fixture(autouse=True)
def _no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second to draw; the command draws."""
    if "command" not in request.node.name:
        monkeypatch.setattr(baseline, "_draw", lambda *_: None)


def nearest(name: str, config: Config) -> tuple[float, float]:
    scores = {"tanh": (80.0, 90.0), "betas_0.5_0.999": (85.0, 92.0), "betas_0.5_0.9": (85.0, 91.0)}
    return (86.0, 100.0) if "+" in name else scores.get(name, (95.0, 60.0))


def test_one_change_at_a_time_then_the_best_two_then_the_nearest_with_fresh_seeds(tmp_path: Path):
    trained: Trained = []
    table = study(tmp_path, pretended(trained, nearest), steps=30)
    names = [name for name, _ in trained]
    assert names == [
        *("first to 30", "divided_by_2.828 to 30", "divided_by_deviation to 30"),
        *("betas_0.5_0.999 to 30", "betas_0.5_0.9 to 30", "betas_0_0.9 to 30"),
        *("leaky-relu to 30", "tanh to 30", "z_128 to 30", "z_256 to 30"),
        *("three_hidden_layers to 30", "he to 30"),
        *("betas_0.5_0.999+tanh to 30", "betas_0.5_0.999+tanh_fresh_seeds to 30"),
    ]
    first, crossed, confirmed = (trained[index][1] for index in (0, -2, -1))
    assert first == Config(hidden_units=8, arms="plain", seeds=2, divide_by="nothing")
    assert (crossed.adam_beta1, crossed.activation, crossed.divide_by) == (0.5, "tanh", "nothing")
    assert set(confirmed.all_seeds()).isdisjoint(crossed.all_seeds())
    assert "| betas 0.5 0.999 | 0, 1 | 85, 85 | 92, 92 | 8.6 |" in table
    assert (
        table.splitlines()[-1] == "| betas 0.5 0.999+tanh, fresh seeds | 2, 3, 4 | 86, 86, 86 | 100, 100, 100 | 0.4 |"
    )
    saved = json.loads((tmp_path / "study.json").read_text())
    assert saved["results"]["tanh_at_30"]["seeds"] == [0, 1]
    # A study goes on when more options are compared.
    assert not set(saved["settings"]) & set(baseline.FIRST)


def test_a_single_change_is_confirmed_where_both_together_are_worse(tmp_path: Path):
    trained: Trained = []
    study(tmp_path, pretended(trained, lambda name, c: (10.0, 10.0) if "+" in name else nearest(name, c)))
    assert trained[-1][0] == "betas_0.5_0.999_fresh_seeds to 50000"


def test_nearness_counts_each_seed_so_that_opposite_errors_do_not_cancel():
    assert baseline._distance([75.6, 95.6], [100.0, 100.0]) == pytest.approx(10)
    assert baseline._distance([85.6, 85.6], [90.0, 100.0]) == pytest.approx(5)


def test_what_is_measured_is_not_trained_again_and_more_steps_continue_all(tmp_path: Path):
    study(tmp_path, pretended([], nearest), steps=30)
    again: Trained = []
    assert "step 30;" in study(tmp_path, pretended(again), steps=30)
    assert not again
    study(tmp_path, pretended(again, nearest, step=30), steps=60)
    assert len(again) == 14
    assert all(name.endswith("to 60") for name, _ in again)


def test_fewer_steps_than_a_run_has_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"^--steps must be at least 40, which .*first has, but got 30\.$"):
        study(tmp_path, pretended([], step=40), steps=30)


def test_a_stop_keeps_what_is_measured(tmp_path: Path):
    with pytest.raises(StudyStoppedError):
        study(tmp_path, pretended([], lambda name, _: None if name == "tanh" else (50.0, 80.0)))
    assert len((tmp_path / "table.md").read_text().splitlines()) == 2 + 2 + 7
    rest: Trained = []
    study(tmp_path, pretended(rest))
    assert [name.split()[0] for name, _ in rest[:3]] == ["tanh", "z_128", "z_256"]


def test_the_command_trains_and_prints_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(baseline, "CHANGES", {"z": {"z_3": {"latent_dim": 3}}, "act": {"tanh": {"activation": "tanh"}}})
    monkeypatch.setattr(session, "draw_samples", lambda *_, **__: None)
    args = ["--study", "baseline", "--run-dir", str(tmp_path), "--hidden-units", "4", "--batch-size", "8"]
    args += ["--evaluation-samples", "20", "--threads", "1", "--steps", "2"]
    assert mixture.main(args) == 0
    assert capfd.readouterr().out == (tmp_path / "table.md").read_text()
    assert (tmp_path / "settings.png").is_file()
    assert mixture.main([*args, "--hidden-units", "5"]) == 2
    assert "holds a study with --hidden-units 4, not 5. Name another folder." in capfd.readouterr().err
