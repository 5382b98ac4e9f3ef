import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from gan_blocks.engine.base.checks import Fields, require_at_least
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import evaluate
from gan_blocks.engine.commands.evaluation import samples as evaluate_samples
from gan_blocks.engine.evaluation.metric import Metric, Plan, Samples
from gan_blocks.engine.evaluation.metrics import METRICS


@dataclass(frozen=True)
class BrightnessOptions(Fields):
    """How bright samples are."""

    brightest: int = 0
    """Samples to look at, the brightest; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 0, "brightest")


@dataclass(frozen=True)
class BrightnessReport:
    brightness: float

    def as_dict(self) -> dict[str, object]:
        return {"brightness": self.brightness}

    def lines(self) -> list[str]:
        return [f"  brightness {self.brightness:.2f}"]


def check(options: BrightnessOptions, plan: Plan) -> None:
    if options.brightest > plan.num:
        raise UserError(f"--brightest must be at most {plan.num}, but got {options.brightest}.")


def measure(options: BrightnessOptions, samples: Samples) -> BrightnessReport | None:
    if not options.brightest:
        return None
    means = samples.images.mean(dim=(1, 2, 3)).sort(descending=True).values
    return BrightnessReport(means[: options.brightest].mean().item())


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Metric(name="brightness", options=BrightnessOptions, measure=measure, check=check)
    monkeypatch.setitem(METRICS, "brightness", metric)


@pytest.mark.slow
@pytest.mark.usefixtures("brightness")
def test_a_metric_from_elsewhere_takes_part_in_everything(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    assert "--brightest 0" in capsys.readouterr().out
    assert evaluate.main(["--run", str(tiny_run), "--num", "6", "--brightest", "2"]) == 0
    assert "  brightness " in capsys.readouterr().out
    assert json.loads((tiny_run / "evaluation.json").read_bytes())["brightness"] <= 1
    assert "brightness" in (tiny_run / "report.html").read_text()
    assert evaluate.main(["--run", str(tiny_run), "--num", "6"]) == 0
    assert "brightness" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["diversity", "seed"])
def test_a_figure_takes_the_place_of_no_other(
    tiny_run: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(BrightnessReport, "as_dict", lambda self: {name: self.brightness})
    monkeypatch.setitem(METRICS, "brightness", Metric(name="brightness", options=BrightnessOptions, measure=measure))
    assert evaluate.main(["--run", str(tiny_run), "--num", "6", "--brightest", "2"]) == 2
    said = capsys.readouterr()
    owner = {"diversity": "the metric quality", "seed": "the settings"}[name]
    problem = f"{owner} and the metric brightness both have an entry {name}; one needs another name."
    assert said.err == f"evaluate: error: evaluation.json cannot hold all figures: {problem}\n"
    assert "  brightness " in said.out  # the figures are there to be read


@pytest.mark.usefixtures("brightness")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--brightest", "-1"], "--brightest must be at least 0, but got -1."),
        (["--brightest", "7"], "--brightest must be at most 6, but got 7."),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_drawn(
    tiny_run: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(evaluate_samples, "draw_samples", None)
    assert evaluate.main(["--run", str(tiny_run), "--num", "6", *words]) == 2
    assert capsys.readouterr().err == f"evaluate: error: {message}\n"


def test_too_few_samples_for_the_classes_are_refused_before_anything_is_drawn(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(evaluate_samples, "draw_samples", None)
    assert evaluate.main(["--run", str(tiny_run), "--num", "4"]) == 2
    rule = "at least 6 for 3 classes, since diversity needs two samples of a class"
    assert capsys.readouterr().err == f"evaluate: error: --num must be {rule}, but got 4.\n"
