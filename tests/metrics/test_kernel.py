import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_blocks import kernel_distance
from gan_blocks.metrics import kernel
from tests.drawn import draw
from tests.reference import feature_metrics as reference


def of_all(real: Tensor, fake: Tensor) -> float:
    """The estimate of two sets of equal size."""
    return kernel_distance(real, fake, subset_size=len(real), num_subsets=1).mean


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("subsets", [4, 9])  # one by one, and together
def test_equals_the_estimates_pair_by_pair(subsets: int, dim: int, dtype: torch.dtype):
    real, fake = draw(9, dim, seed=0).to(dtype), (2 * draw(12, dim, seed=1) + 1).to(dtype)
    got = kernel_distance(real, fake, subset_size=5, num_subsets=subsets, generator=torch.Generator().manual_seed(3))
    stream = torch.Generator().manual_seed(3)  # the draws, in the order of their use
    estimates = []
    for _ in range(subsets):
        chosen = [some[torch.randperm(len(some), generator=stream)[:5]].tolist() for some in (real, fake)]
        estimates.append(reference.squared_mmd(*chosen))
    assert got.mean == pytest.approx(np.mean(estimates), rel=1e-12)
    assert got.standard_deviation == pytest.approx(np.std(estimates), rel=1e-12)


def test_is_zero_in_expectation_for_one_distribution():
    """500 pairs of 8 samples each; the pairs of a sample with itself would add a bias."""
    count = 8
    estimates = [of_all(*draw(2, count, 2, seed=seed)) for seed in range(500)]
    error = np.std(estimates) / len(estimates) ** 0.5
    assert abs(np.mean(estimates)) < 4 * error
    sample = draw(100_000, 2)
    bias = 2 * (((sample.square().sum(1) / 2 + 1) ** 3).mean() - 2.5) / count  # 2.5: mean over pairs of different ones
    assert abs(np.mean(estimates)) < bias / 10


@pytest.mark.parametrize("count", [4, 16])
def test_is_the_difference_of_three_moments_in_expectation_at_every_count(count: int):
    """With one feature the kernel is the sum of C(3, j) x^j y^j; here of random signs and shifted random signs."""
    shift, trials = 0.5, 500
    real, fake = draw(trials, count, 1, seed=0).sign(), draw(trials, count, 1, seed=1).sign() + shift
    estimates = [of_all(*pair) for pair in zip(real, fake, strict=True)]
    moments = [shift, shift**2, shift**3 + 3 * shift]  # less those without the shift: 0, 1 and 0
    wanted = math.fsum(weight * moment**2 for weight, moment in zip((3, 3, 1), moments, strict=True))
    assert np.mean(estimates) == pytest.approx(wanted, abs=4 * np.std(estimates) / trials**0.5)


@given(count=st.integers(2, 8), dim=st.integers(1, 4), seed=st.integers(0, 99))
def test_order_rotation_and_the_names_of_the_sets_do_not_matter(count: int, dim: int, seed: int):
    real, fake = draw(count, dim, seed=seed), draw(count, dim, seed=seed + 1) + 0.5
    rotation = torch.linalg.qr(draw(dim, dim, seed=seed + 2)).Q
    plain = pytest.approx(of_all(real, fake), rel=1e-9, abs=1e-9)
    assert of_all(real.flip(0), fake.roll(1, 0)) == plain
    assert of_all(real @ rotation, fake @ rotation) == plain
    assert of_all(fake, real) == plain


def test_one_subset_of_all_samples_draws_nothing_that_counts():
    real, fake = draw(7, 3, seed=0), draw(7, 3, seed=1)
    one, other = (
        kernel_distance(real, fake, subset_size=7, num_subsets=1, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    assert one.mean == pytest.approx(other.mean, rel=1e-12)
    assert one.standard_deviation == 0


@pytest.mark.parametrize(("name", "value"), [("ROWS_AT_ONCE", 3), ("SUBSETS_AT_ONCE", 1), ("SUBSETS_AT_ONCE", 4)])
@pytest.mark.parametrize(("subset_size", "num_subsets"), [(10, 1), (6, 10)])
def test_what_is_computed_at_once_does_not_matter(
    subset_size: int, num_subsets: int, name: str, value: int, monkeypatch: pytest.MonkeyPatch
):
    def found() -> tuple[float, ...]:
        stream = torch.Generator().manual_seed(2)
        sets = draw(10, 3, seed=0), draw(11, 3, seed=1)
        return kernel_distance(*sets, subset_size=subset_size, num_subsets=num_subsets, generator=stream)

    whole = found()
    monkeypatch.setattr(kernel, name, value)
    assert found() == pytest.approx(whole, rel=1e-12)


def test_a_large_mean_costs_no_digits_that_float32_features_have():
    real, fake = (draw(20, 3, seed=seed).float() + 100 for seed in (0, 1))
    wanted = reference.squared_mmd(real.tolist(), fake.tolist())
    assert of_all(real, fake) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", ["real_features", "fake_features"])
def test_rejects_wrong_sets(name: str):
    good = {"real_features": draw(4, 3), "fake_features": draw(5, 3), "subset_size": 3}
    rule = f"kernel_distance: `{name}` must be of shape (samples, features) with at least subset_size=3 samples, but "
    for shape in ((4,), (2, 3), (4, 0), (2, 2, 3)):
        with pytest.raises(ValueError, match="^" + re.escape(f"{rule}got {name} of shape {shape}.") + "$"):
            kernel_distance(**{**good, name: draw(*shape)})
    with pytest.raises(TypeError, match=f"^kernel_distance: `{name}` must be of dtype floating point, but got"):
        kernel_distance(**{**good, name: torch.ones(4, 3, dtype=torch.int64)})
    with pytest.raises(TypeError, match=rf"^kernel_distance: `{name}` must be a tensor, but got {name} of type ndarr"):
        kernel_distance(**{**good, name: np.ones((4, 3))})
    spoilt = draw(4, 3)
    spoilt[1, 2] = torch.inf
    with pytest.raises(ValueError, match=rf"^kernel_distance: `{name}` must be finite, but got {name}='1 of 12 "):
        kernel_distance(**{**good, name: spoilt})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"subset_size": 1}, ValueError, "`subset_size` must be at least 2, but got subset_size=1."),
        ({"num_subsets": 0}, ValueError, "`num_subsets` must be greater than 0, but got num_subsets=0."),
        ({"num_subsets": 1.5}, TypeError, "`num_subsets` must be a whole number, but got num_subsets of type float."),
        ({"subset_size": True}, TypeError, "`subset_size` must be a whole number, but got subset_size of type bool."),
        (
            {"fake_features": torch.zeros(4, 2)},
            ValueError,
            "`fake_features` must be of shape (samples, 3), but got fake_features of shape (4, 2).",
        ),
    ],
)
def test_rejects_other_wrong_arguments(options: dict, error: type[Exception], message: str):
    arguments = {"real_features": torch.zeros(4, 3), "fake_features": torch.zeros(4, 3), "subset_size": 2, **options}
    with pytest.raises(error) as raised:
        kernel_distance(**arguments)
    assert str(raised.value) == f"kernel_distance: {message}"
