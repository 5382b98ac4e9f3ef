import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import AnnealedNormalPrior, NormalPrior, Prior, TruncatedNormalPrior, truncated_normal, truncated_prior
from tests.reference import latents as reference

# Distance that a true sample of n exceeds with a probability below 1e-6 (Massart's bound: 2 exp(-2 n d^2)).
COUNT = 20_000
CRITICAL_DISTANCE = math.sqrt(math.log(2 / 1e-6) / (2 * COUNT))


@pytest.mark.parametrize("threshold", [0.04, 0.5, 1.0, 2.0, 6.0])
def test_follows_the_conditioned_normal_distribution(threshold: float, rng: torch.Generator):
    z = truncated_normal(COUNT, threshold=threshold, generator=rng, dtype=torch.float64)
    distance = reference.kolmogorov_smirnov(z.tolist(), lambda x: reference.truncated_normal_cdf(x, threshold))
    assert distance < CRITICAL_DISTANCE


@pytest.mark.parametrize("threshold", [0.5, 1.5])
def test_follows_the_papers_resampling(threshold: float, rng: torch.Generator):
    resampled = reference.resampled_normal(COUNT, threshold, seed=0)
    assert (
        reference.kolmogorov_smirnov(resampled, lambda x: reference.truncated_normal_cdf(x, threshold))
        < CRITICAL_DISTANCE
    ), "the closed form that the other test relies on is wrong"
    z = truncated_normal(COUNT, threshold=threshold, generator=rng).sort().values
    expected = torch.tensor(sorted(resampled))
    # Quantiles between the 5th and the 95th percentile, where those of two true samples differ by less than this.
    inner = slice(COUNT // 20, -COUNT // 20)
    assert (z[inner] - expected[inner]).abs().max() < 8 * threshold / COUNT**0.5


@pytest.mark.parametrize("threshold", [0.04, 0.5, 1.0, 2.0])
def test_has_the_moments_of_the_closed_form(threshold: float, rng: torch.Generator):
    z = truncated_normal(200, 1000, threshold=threshold, generator=rng, dtype=torch.float64)
    second, fourth = reference.truncated_normal_even_moments(threshold)
    standard_error = 1 / z.numel() ** 0.5
    assert abs(z.mean().item()) < 5 * second**0.5 * standard_error
    assert abs(z.square().mean().item() - second) < 5 * (fourth - second**2) ** 0.5 * standard_error


@given(
    threshold=st.floats(1e-3, 50),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 99),
)
def test_never_leaves_the_support_in_any_dtype(threshold: float, dtype: torch.dtype, seed: int):
    z = truncated_normal(500, threshold=threshold, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    assert z.dtype == dtype
    assert all(-threshold <= value <= threshold for value in z.tolist())
    assert z.unique().numel() > 100 or dtype in (torch.bfloat16, torch.float16)


def test_the_extreme_uniform_numbers_stay_finite_and_symmetric(monkeypatch: pytest.MonkeyPatch):
    extremes = torch.tensor([0.0, 0.5, 0.5 - 2.0**-53, 1 - 2.0**-53], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: extremes.clone())
    lowest, above, below, highest = truncated_normal(4, threshold=40.0, dtype=torch.float64).tolist()
    assert -9 < lowest == -highest < -8
    assert 0 < above == -below < 1e-15


def test_the_same_generator_state_gives_the_same_latents_and_leaves_the_global_one_alone(rng: torch.Generator):
    before = torch.get_rng_state()
    first = truncated_normal(7, 5, threshold=0.7, generator=rng)
    again = truncated_normal(7, 5, threshold=0.7, generator=rng.manual_seed(0))
    assert torch.equal(first, again)
    assert not torch.equal(first, truncated_normal(7, 5, threshold=0.7, generator=rng))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_lower_threshold_contracts_the_same_draws(rng: torch.Generator):
    wide = truncated_normal(1000, threshold=2.0, generator=rng, dtype=torch.float64)
    narrow = truncated_normal(1000, threshold=0.5, generator=rng.manual_seed(0), dtype=torch.float64)
    assert torch.equal(wide.argsort(), narrow.argsort())
    assert (narrow.abs() < wide.abs()).all()


@pytest.mark.parametrize("threshold", [None, math.inf])
def test_without_a_threshold_it_is_the_plain_normal(threshold: float | None, rng: torch.Generator):
    z = truncated_normal(3, 4, threshold=threshold, generator=rng)
    assert torch.equal(z, torch.randn(3, 4, generator=rng.manual_seed(0)))


@pytest.mark.parametrize("shape", [(3, 4), ((3, 4),), ([3, 4],), (torch.Size([3, 4]),), (np.int64(3), 4)])
def test_takes_sizes_as_numbers_or_as_one_sequence(shape, rng: torch.Generator):
    z = truncated_normal(*shape, threshold=1.0, generator=rng)
    assert z.shape == (3, 4)
    assert truncated_normal((), threshold=1.0, generator=rng).shape == ()


def test_works_on_the_meta_device():
    assert truncated_normal(3, 4, threshold=1.0, device="meta").shape == (3, 4)
    with torch.device("meta"):
        assert truncated_normal(3, 4, threshold=1.0).device.type == "meta"


@pytest.mark.parametrize("threshold", [-1.0, math.nan])
def test_rejects_a_threshold_that_leaves_nothing(threshold: float):
    pattern = rf"^truncated_normal: `threshold` must be at least 0, but got threshold={threshold}\.$"
    with pytest.raises(ValueError, match=pattern):
        truncated_normal(3, threshold=threshold)


@pytest.mark.parametrize("threshold", [None, 1.0])
def test_rejects_an_integer_dtype(threshold: float | None):
    pattern = r"^truncated_normal: `dtype` must be a floating dtype, but got dtype=torch\.int64\.$"
    with pytest.raises(ValueError, match=pattern):
        truncated_normal(3, threshold=threshold, dtype=torch.int64)


def test_rejects_sizes_that_are_no_numbers():
    with pytest.raises(TypeError):
        truncated_normal((3,), 4, threshold=1.0)


# As a prior


def test_the_papers_definition_cuts_at_the_number(rng: torch.Generator):
    prior = truncated_prior(NormalPrior(COUNT, std=0.5), 1.5)
    z = prior.sample(1, generator=rng, dtype=torch.float64).flatten()
    distance = reference.kolmogorov_smirnov(z.tolist(), lambda x: reference.truncated_normal_cdf(x / 0.5, 1.5))
    assert distance < CRITICAL_DISTANCE
    assert prior.support == (-0.75, 0.75)


def test_the_released_models_definition_scales_a_normal_cut_at_2(rng: torch.Generator):
    prior = truncated_prior(NormalPrior(COUNT), 0.5, method="scaled")
    z = prior.sample(1, generator=rng, dtype=torch.float64).flatten()
    distance = reference.kolmogorov_smirnov(z.tolist(), lambda x: reference.truncated_normal_cdf(x / 0.5, 2.0))
    assert distance < CRITICAL_DISTANCE
    assert prior.support == (-1.0, 1.0)
    assert torch.equal(z, 0.5 * truncated_normal(COUNT, threshold=2, generator=rng.manual_seed(0), dtype=z.dtype))


def test_the_two_definitions_differ_in_law_at_the_same_number():
    cut, scaled = (truncated_prior(NormalPrior(3), 0.5, method=name) for name in ("threshold", "scaled"))
    assert [round(prior.variance[0].item() ** 0.5, 2) for prior in (cut, scaled)] == [0.28, 0.44]


def test_no_truncation_is_the_prior_itself():
    prior = NormalPrior(3, std=2.0)
    assert truncated_prior(prior, None) is prior
    assert truncated_prior(prior, None, method="scaled") is prior


@pytest.mark.parametrize("threshold", [1e-4, 0.0299, 0.03, 0.0301, 0.5, 2.0, 8.0])
def test_a_truncated_prior_states_the_moments_of_its_density(threshold: float):
    nodes, weights = np.polynomial.legendre.leggauss(60)
    density = np.exp(-((threshold * nodes) ** 2) / 2) * weights
    expected = 4 * ((threshold * nodes) ** 2 * density).sum() / density.sum()
    prior = TruncatedNormalPrior(3, threshold=threshold, std=2.0)
    assert prior.variance.tolist() == pytest.approx([expected] * 3, rel=1e-10)
    assert prior.mean.tolist() == [0, 0, 0]


@pytest.mark.parametrize("threshold", [50.0, 1e200])
def test_a_threshold_beyond_all_draws_leaves_the_variance_of_the_normal(threshold: float):
    assert TruncatedNormalPrior(2, threshold=threshold, std=3.0).variance.tolist() == [9, 9]


@given(
    threshold=st.floats(1e-2, 5),
    std=st.floats(1e-2, 5),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_a_truncated_prior_never_leaves_its_support_in_any_dtype(threshold: float, std: float, dtype: torch.dtype):
    prior = TruncatedNormalPrior(500, threshold=threshold, std=std)
    z = prior.sample(1, generator=torch.Generator().manual_seed(0), dtype=dtype)
    low, high = prior.support
    assert z.dtype == dtype
    assert all(low <= value <= high for value in z.flatten().tolist())


@pytest.mark.parametrize("truncation", [-1.0, math.nan])
def test_rejects_a_truncation_that_leaves_nothing(truncation: float):
    pattern = rf"^truncated_prior: `truncation` must be at least 0, but got truncation={truncation}\.$"
    with pytest.raises(ValueError, match=pattern):
        truncated_prior(NormalPrior(3), truncation)


@pytest.mark.parametrize("name", ["threshold", "std"])
def test_a_truncated_prior_rejects_what_is_negative(name: str):
    pattern = rf"^TruncatedNormalPrior: `{name}` must be at least 0, but got {name}=-1\.0\.$"
    with pytest.raises(ValueError, match=pattern):
        TruncatedNormalPrior(3, **{"threshold": 1.0, name: -1.0})


@pytest.mark.parametrize("name", ["threshold", "std"])
def test_a_truncated_prior_rejects_what_is_infinite(name: str):
    pattern = rf"^TruncatedNormalPrior: `{name}` must be finite, but got {name}=inf\.$"
    with pytest.raises(ValueError, match=pattern):
        TruncatedNormalPrior(3, **{"threshold": 1.0, name: math.inf})


def test_an_infinite_threshold_leaves_the_prior_and_an_infinite_scale_is_refused():
    prior = NormalPrior(3, std=2.0)
    assert truncated_prior(prior, math.inf) is prior
    with pytest.raises(ValueError, match=r"^truncated_prior: `truncation` must be finite, but got truncation=inf\.$"):
        truncated_prior(prior, math.inf, method="scaled")


def test_rejects_a_definition_that_it_does_not_know():
    pattern = r"^truncated_prior: `method` must be 'threshold' or 'scaled', but got method='clamp'\.$"
    with pytest.raises(ValueError, match=pattern):
        truncated_prior(NormalPrior(3), 1.0, method="clamp")  # type: ignore[arg-type]


def test_rejects_a_prior_that_is_not_normal():
    prior: Prior = TruncatedNormalPrior(3, threshold=1.0)
    pattern = r"^truncated_prior: `prior` must be a NormalPrior, but got prior of type TruncatedNormalPrior\.$"
    with pytest.raises(TypeError, match=pattern):
        truncated_prior(prior, 1.0)


def test_an_annealed_prior_is_truncated_as_it_is_in_the_end():
    prior = AnnealedNormalPrior(3, milestones=((0, 2.0), (9, 0.25)))
    assert truncated_prior(prior, 1.0) == TruncatedNormalPrior(3, threshold=1.0, std=0.5)
    assert truncated_prior(prior, None) is prior


@pytest.mark.parametrize("method", ["threshold", "scaled"])
def test_a_truncation_of_0_is_the_mean(method: str, rng: torch.Generator):
    prior = truncated_prior(NormalPrior(3), 0.0, method=method)
    assert (prior.sample(4, generator=rng) == 0).all()
    assert prior.variance.tolist() == [0, 0, 0]
    assert (truncated_normal(2, 3, threshold=0.0) == 0).all()
