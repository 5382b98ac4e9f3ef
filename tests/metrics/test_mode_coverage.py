import math

import pytest
import torch

from gan_blocks import mode_coverage
from tests.reference import mode_coverage as reference


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_equals_the_count_of_sample_by_sample(dimensions: int, rng: torch.Generator):
    modes = torch.randn(7, dimensions, dtype=torch.float64, generator=rng)
    samples = torch.randn(200, dimensions, dtype=torch.float64, generator=rng)
    coverage = mode_coverage(samples, modes, radius=0.3)
    high_quality, recovered, counts = reference.mode_coverage(samples.tolist(), modes.tolist(), 0.3)
    assert 0 < high_quality < 1
    assert coverage.high_quality == pytest.approx(high_quality, abs=1e-15)
    assert coverage.recovered == pytest.approx(recovered, abs=1e-15)
    assert coverage.counts.tolist() == counts


def test_short_distances_far_from_the_origin_keep_their_digits():
    mode = torch.tensor([[1000.0, 1000.0]])
    assert mode_coverage(mode + torch.tensor([[0.25, 0.0]]), mode, radius=0.25).high_quality == 1
    assert mode_coverage(mode + torch.tensor([[0.3125, 0.0]]), mode, radius=0.25).high_quality == 0


def test_samples_that_are_not_finite_are_near_no_mode():
    samples = torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [0.0, 0.0], [0.0, 0.0]])
    coverage = mode_coverage(samples, torch.zeros(1, 2), radius=1)
    assert (coverage.high_quality, coverage.recovered) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("samples", "modes", "radius", "message"),
    [
        ((4, 2), (3, 2), 0, "`radius` must be greater than 0, but got radius=0."),
        ((4,), (3, 2), 1, "`samples` must be of shape (batch, dimensions), but got samples of shape (4,)."),
        (
            (0, 2),
            (3, 2),
            1,
            "`samples` must be of shape (batch, dimensions) with at least one sample, but got samples of shape (0, 2).",
        ),
        (
            (4, 2),
            (3, 1),
            1,
            "`modes` must be of shape (modes, 2) with at least one mode, but got modes of shape (3, 1).",
        ),
        (
            (4, 2),
            (0, 2),
            1,
            "`modes` must be of shape (modes, 2) with at least one mode, but got modes of shape (0, 2).",
        ),
    ],
)
def test_rejects_what_cannot_be_measured(samples, modes, radius, message: str):
    with pytest.raises(ValueError, match=r"^mode_coverage: ") as error:
        mode_coverage(torch.zeros(samples), torch.zeros(modes), radius=radius)
    assert str(error.value) == f"mode_coverage: {message}"
