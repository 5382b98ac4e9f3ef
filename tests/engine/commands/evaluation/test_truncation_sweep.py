import json
from pathlib import Path

import pytest

from gan_blocks.engine.commands import evaluate
from gan_blocks.engine.commands.evaluation.truncation_sweep import Point, operating_points


def test_the_operating_points_are_those_of_table_2():
    points = [Point(0.2, 30, 9), Point(0.5, 12, 7), Point(1, 8, 5), Point(None, 10, 3)]
    picked = operating_points(points, real_quality=6.8)
    assert {name: point.truncation for name, point in picked.items()} == {
        "no truncation": None,
        "least distance": 1,
        "quality of real images": 0.5,
        "best quality": 0.2,
    }
    assert "quality of real images" not in operating_points(points, None)


def test_a_sweep_draws_a_curve_and_keeps_the_figures_of_each_point(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    args = ["--run", str(tiny_run), "--num", "30", "--features", "classifier", "--truncation-sweep", "1", "0.5"]
    args += ["--truncation-by", "scaled"]
    assert evaluate.main(args) == 0
    printed = capsys.readouterr().out
    found = json.loads((tiny_run / "truncation.json").read_bytes())
    assert [point["truncation"] for point in found["points"]] == [0.5, 1.0, None]
    assert found["by"] == "scaled"
    assert all(0 <= point["precision"]["value"] <= 1 for point in found["points"])
    assert all(point["sampling_precision"] == "fp32" for point in found["points"])
    distances = [point["frechet_distance"]["value"] for point in found["points"]]
    assert len(set(distances)) == 3
    assert found["operating_points"]["least distance"]["distance"] == min(distances)
    assert (tiny_run / "truncation.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tiny_run / "evaluation.json").read_bytes())["truncation"] is None
    assert [line for line in printed.splitlines() if line.startswith(("no truncation ", "least distance ", "best "))]


def test_a_sweep_says_once_that_threads_are_more_than_cores(
    tiny_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    args = ["--run", str(tiny_run), "--num", "30", "--features", "classifier", "--truncation-sweep", "0.5"]
    assert evaluate.main([*args, "--threads", "3"]) == 0
    assert capsys.readouterr().out.count("--threads 3 is more than there are cores (2)") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--truncation-sweep needs --features, whose scores it draws."),
        (["--features", "classifier", "--truncation", "1"], "leave out --truncation."),
    ],
)
def test_a_sweep_needs_scores_and_names_all_truncations(
    tiny_run: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert evaluate.main(["--run", str(tiny_run), "--truncation-sweep", "0.5", *args]) == 2
    assert message in capsys.readouterr().err


def test_a_truncation_of_nothing_is_refused(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate.main(["--run", str(tiny_run), "--truncation-sweep", "0", "--features", "classifier"]) == 2
    assert "--truncation-sweep must be finite numbers greater than 0, but got 0.0." in capsys.readouterr().err
