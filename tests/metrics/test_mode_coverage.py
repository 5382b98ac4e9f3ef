import math

import pytest
import torch

from gan_blocks import discrete_mode_coverage, mode_coverage
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_samples_of_other_dtypes_are_measured_in_float32(dtype: torch.dtype):
    samples = torch.tensor([[0, 0], [2, 0], [5, 5]], dtype=dtype)
    assert mode_coverage(samples, torch.tensor([[0.1, 0.0], [2.0, 0.0]]), radius=0.5).counts.tolist() == [1, 1]


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


# Discrete modes


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_discrete_modes_equal_the_count_of_sample_by_sample(dtype: torch.dtype, rng: torch.Generator):
    modes = torch.randint(0, 20, (60,), generator=rng).square().div(19, rounding_mode="floor").to(dtype)
    coverage = discrete_mode_coverage(modes, num_modes=20)
    covered, divergence = reference.discrete_mode_coverage(modes.tolist(), 20)
    assert 1 < covered < 20
    assert coverage.covered == covered
    assert coverage.kl_divergence == pytest.approx(divergence, abs=1e-12)
    assert coverage.counts.tolist() == [modes.tolist().count(mode) for mode in range(20)]


def test_the_divergence_goes_from_zero_to_the_logarithm_of_the_number_of_modes():
    assert discrete_mode_coverage(torch.arange(1000).repeat(3), num_modes=1000)[:2] == (1000, pytest.approx(0))
    one = discrete_mode_coverage(torch.full((9,), 7), num_modes=1000)
    assert one[:2] == (1, pytest.approx(math.log(1000)))


def test_perfect_samples_have_the_divergence_that_the_docstring_states(rng: torch.Generator):
    modes = torch.randint(1000, (25_600,), generator=rng)
    assert discrete_mode_coverage(modes, num_modes=1000).kl_divergence == pytest.approx(999 / 51_200, rel=0.15)


@pytest.mark.parametrize(
    ("modes", "num_modes", "error", "message"),
    [
        (torch.zeros(3), 2, TypeError, "`modes` must be of an integer dtype, but got torch.float32."),
        (torch.zeros(3, dtype=torch.bool), 2, TypeError, "`modes` must be of an integer dtype, but got torch.bool."),
        (torch.tensor([0, 2]), 2, ValueError, "`modes` must be from 0 to 1, but got modes=2."),
        (torch.tensor([0, -1]), 2, ValueError, "`modes` must be from 0 to 1, but got modes=-1."),
        (torch.tensor([0]), 0, ValueError, "`num_modes` must be greater than 0, but got num_modes=0."),
        (torch.tensor([0]), 3.0, TypeError, "`num_modes` must be a whole number, but got num_modes of type float."),
        ([1, 2], 3, TypeError, "`modes` must be a tensor, but got modes of type list."),
        (
            torch.zeros(2, 1, dtype=torch.int64),
            2,
            ValueError,
            "`modes` must be of shape (batch,) with at least one sample, but got modes of shape (2, 1).",
        ),
        (
            torch.zeros(0, dtype=torch.int64),
            2,
            ValueError,
            "`modes` must be of shape (batch,) with at least one sample, but got modes of shape (0,).",
        ),
    ],
)
def test_rejects_discrete_modes_that_cannot_be_counted(modes, num_modes, error, message: str):
    with pytest.raises(error) as raised:
        discrete_mode_coverage(modes, num_modes=num_modes)
    assert str(raised.value) == f"discrete_mode_coverage: {message}"
