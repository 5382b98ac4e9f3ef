import re

import numpy as np
import pytest

from gan_blocks.engine.runs.charts import Curve, line_chart, smoothed, ticks


def curve(values: list[float], name: str = "loss") -> Curve:
    return Curve(name, np.arange(1.0, len(values) + 1), np.array(values), "red")


def points(figure: str, kind: str) -> np.ndarray:
    (found,) = re.findall(rf'<polyline class="{kind}" points="([^"]*)"', figure)
    return np.array([point.split(",") for point in found.split()], dtype=float)


def texts(figure: str, anchor: str) -> list[str]:
    return re.findall(rf'text-anchor="{anchor}">([^<]*)<', figure)


def test_smoothing_keeps_a_constant_and_the_mean_and_removes_noise():
    assert smoothed(np.full(200, 3.0)) == pytest.approx(np.full(200, 3.0))
    rng = np.random.default_rng(0)
    noisy = np.linspace(0, 10, 400) + rng.normal(size=400)
    smooth = smoothed(noisy)
    assert smooth.mean() == pytest.approx(noisy.mean(), abs=0.05)
    assert np.std(smooth - np.linspace(0, 10, 400)) < 0.3


def test_few_points_are_drawn_as_they_are():
    assert smoothed(np.array([1.0, 5.0, 2.0])).tolist() == [1, 5, 2]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-0.9, 2.3, [0, 1, 2]),
        (0.61, 0.69, [0.62, 0.64, 0.66, 0.68]),
        (1, 1500, [200, 400, 600, 800, 1000, 1200, 1400]),
        (1e-5, 4e-5, [1e-5, 2e-5, 3e-5, 4e-5]),
    ],
)
def test_ticks_are_round_numbers_inside(low: float, high: float, expected: list[float]):
    assert ticks(low, high) == expected


def test_the_raw_curve_is_under_the_smoothed_one_and_the_caption_has_its_last_value():
    figure = line_chart([curve([4.0] * 100)])
    assert figure.index('class="raw"') < figure.index('class=""')
    assert "loss 4</span>" in figure
    height = points(figure, "")[:, 1]
    assert np.ptp(height) == 0


def test_no_extreme_of_a_long_curve_is_lost():
    values = [0.0] * 10_000
    values[5000] = 0.5
    values[7000] = -0.5
    heights = points(line_chart([curve(values)]), "raw")[:, 1]
    assert len(heights) == 800
    assert heights.min() < np.median(heights) < heights.max()


def test_one_spike_does_not_make_the_rest_flat():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, 1000)
    values[3] = 1e4
    heights = points(line_chart([curve(list(values))]), "")[:, 1]
    assert np.ptp(heights[50:]) > 5


def test_values_that_are_not_finite_are_left_out():
    figure = line_chart([curve([1.0, np.nan, np.inf, 2.0])])
    assert len(points(figure, "")) == 2
    assert "nan" not in figure
    assert line_chart([curve([np.nan, np.nan])]) == ""
    assert line_chart([]) == ""


def test_a_logarithmic_axis_names_values_and_leaves_out_zeros():
    figure = line_chart([curve([0.0, 0.1, 1.0, 100.0])], smooth=False, logarithmic=True)
    assert len(points(figure, "thin")) == 3
    assert {"0.1", "1", "10", "100"} <= set(texts(figure, "end"))
    assert "loss 100</span>" in figure
    narrow = line_chart([curve([1.0, 1.1])], smooth=False, logarithmic=True)
    assert texts(narrow, "end")[:6] == ["1", "1.02", "1.04", "1.06", "1.08", "1.1"]


def test_one_step_and_one_value_make_a_chart():
    figure = line_chart([curve([2.0])])
    assert points(figure, "").shape == (1, 2)
    assert texts(figure, "end") == ["1.9", "1.95", "2", "2.05", "2.1", "2"]
    assert texts(figure, "middle") == ["1"]  # and 2, at the right end


def test_steps_are_whole_and_short():
    figure = line_chart([curve([0.0] * 45_000)])
    assert texts(figure, "middle") == ["10k", "20k", "30k", "40k"]


def test_names_are_escaped():
    figure = line_chart([curve([1.0, 2.0], name='<b>"')])
    assert "<b>" not in figure
    assert "&lt;b&gt;&quot; 2</span>" in figure
