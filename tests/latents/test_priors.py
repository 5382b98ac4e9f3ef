"""Every prior: its law, support, moments, (in)dependence and determinism.

Random tests use fixed seeds. Each is worded so that a correct prior fails it, for another seed, with a probability
below 1e-6: five standard errors (two-sided 5.7e-7), or Massart's bound for a distance of distribution functions.
"""

import dataclasses
import math
import random
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import (
    AnnealedNormalPrior,
    BernoulliPrior,
    CategoricalPrior,
    CensoredNormalPrior,
    NormalBernoulliPrior,
    NormalPrior,
    Prior,
    RademacherPrior,
    SphericalPrior,
    SpikeAndSlabPrior,
    UniformPrior,
    VariableVariancePrior,
)
from tests.reference import latents as reference

DIM = 6
COUNT = 40_000
STANDARD_ERRORS = 5
PRIORS: dict[str, Prior] = {
    "normal": NormalPrior(DIM),
    "uniform": UniformPrior(DIM),
    "bernoulli": BernoulliPrior(DIM),
    "censored": CensoredNormalPrior(DIM),
    "rademacher": RademacherPrior(DIM),
    "categorical": CategoricalPrior(DIM),
    "spike and slab": SpikeAndSlabPrior(DIM),
    "normal and bernoulli": NormalBernoulliPrior(DIM),
    "variable variance": VariableVariancePrior(DIM, lowest_variance=0.5, highest_variance=3.5),
    "spherical": SphericalPrior(DIM),
}
every_prior = pytest.mark.parametrize("name", PRIORS)
# Cov(z_i^2, z_j^2) of two components of a sample, where they are not independent: the variance of the shared sigma,
# and the moments of the sphere, E z_i^2 z_j^2 = d / (d + 2).
COVARIANCE_OF_SQUARES = {"variable variance": 3.0**2 / 12, "spherical": DIM / (DIM + 2) - 1}


@pytest.fixture(scope="module")
def samples() -> dict[str, torch.Tensor]:
    def draw(prior: Prior) -> torch.Tensor:
        return prior.sample(COUNT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    return {name: draw(prior) for name, prior in PRIORS.items()}


def standard_error(terms: torch.Tensor) -> torch.Tensor:
    return terms.std(0) / len(terms) ** 0.5


@every_prior
def test_samples_follow_the_papers_words(name: str, samples: dict[str, torch.Tensor]):
    source, count = random.Random(0), 4000
    expected = [reference.appendix_e_sample(name, DIM, source) for _ in range(count)]
    for column in (0, DIM - 1):
        distance = reference.kolmogorov_smirnov_between(
            samples[name][:count, column].tolist(), [vector[column] for vector in expected]
        )
        # Each sample's function is that far from the true one with a probability below 1e-7.
        assert distance < 2 * math.sqrt(math.log(2 / 1e-7) / (2 * count))


@every_prior
def test_samples_have_the_moments_that_the_prior_states(name: str, samples: dict[str, torch.Tensor]):
    prior, z = PRIORS[name], samples[name]
    assert prior.mean.shape == prior.variance.shape == (DIM,)
    assert prior.mean.dtype == prior.variance.dtype == torch.float64
    assert ((z.mean(0) - prior.mean).abs() <= STANDARD_ERRORS * standard_error(z)).all()
    squares = (z - prior.mean).square()
    # The squares of a component that is -1 or 1 are all 1: rounding is left.
    assert ((squares.mean(0) - prior.variance).abs() <= STANDARD_ERRORS * standard_error(squares) + 1e-12).all()


@every_prior
def test_components_depend_on_each_other_as_the_prior_says(name: str, samples: dict[str, torch.Tensor]):
    centered = samples[name] - PRIORS[name].mean
    squares = samples[name].square() - samples[name].square().mean(0)
    for i in range(DIM):
        for j in range(i):
            products = centered[:, i] * centered[:, j]
            assert products.mean().abs() <= STANDARD_ERRORS * standard_error(products)
            products = squares[:, i] * squares[:, j] - COVARIANCE_OF_SQUARES.get(name, 0.0)
            assert products.mean().abs() <= STANDARD_ERRORS * standard_error(products)


@every_prior
def test_the_samples_of_a_batch_are_independent(name: str, samples: dict[str, torch.Tensor]):
    for terms in (samples[name], samples[name].square()):
        centered = terms - terms.mean(0)
        products = centered[:-1] * centered[1:]
        assert (products.mean(0).abs() <= STANDARD_ERRORS * standard_error(products)).all()


@every_prior
def test_the_support_is_the_smallest_that_holds_all_samples(name: str, samples: dict[str, torch.Tensor]):
    low, high = PRIORS[name].support
    least, most = samples[name].min().item(), samples[name].max().item()
    assert low <= least
    assert most <= high
    # The sphere's ends are its poles, near which few samples lie.
    assert least - low < 0.05 or (low == -math.inf and least < -3)
    assert high - most < 0.05 or (high == math.inf and most > 3)


@given(
    name=st.sampled_from(sorted(PRIORS)),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 2**32),
)
def test_no_sample_leaves_the_support_in_any_dtype(name: str, dtype: torch.dtype, seed: int):
    z = PRIORS[name].sample(50, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    low, high = PRIORS[name].support
    assert (z.shape, z.dtype) == ((50, DIM), dtype)
    assert all(low <= value <= high for value in z.flatten().tolist())


@every_prior
def test_the_same_generator_state_gives_the_same_latents_and_leaves_the_global_one_alone(
    name: str, rng: torch.Generator
):
    prior, before = PRIORS[name], torch.get_rng_state()
    first, second = prior.sample(30, generator=rng), prior.sample(30, generator=rng)
    assert not torch.equal(first, second)
    rng.manual_seed(0)
    assert torch.equal(first, prior.sample(30, generator=rng))
    assert torch.equal(second, prior.sample(30, generator=rng))
    assert torch.equal(torch.get_rng_state(), before)


@every_prior
def test_without_a_generator_the_global_one_decides(name: str):
    torch.manual_seed(3)
    first = PRIORS[name].sample(30)
    torch.manual_seed(3)
    assert torch.equal(first, PRIORS[name].sample(30))
    assert first.dtype == torch.get_default_dtype()


@every_prior
def test_samples_have_the_dtype_and_device_asked_for(name: str):
    z = PRIORS[name].sample(3, device="meta", dtype=torch.bfloat16)
    assert (z.shape, z.dtype, z.device.type) == ((3, DIM), torch.bfloat16, "meta")


@every_prior
def test_rejects_an_integer_dtype(name: str):
    owner = type(PRIORS[name]).__name__
    pattern = rf"^{owner}: `dtype` must be a floating dtype, but got dtype=torch\.int64\.$"
    with pytest.raises(ValueError, match=pattern):
        PRIORS[name].sample(3, dtype=torch.int64)


@every_prior
def test_rejects_a_dimension_that_is_not_positive(name: str):
    owner = type(PRIORS[name]).__name__
    with pytest.raises(ValueError, match=rf"^{owner}: `dim` must be greater than 0, but got dim=0\.$"):
        dataclasses.replace(PRIORS[name], dim=0)


@every_prior
def test_a_prior_that_is_not_annealed_is_the_same_at_every_step(name: str):
    assert PRIORS[name].at(0) is PRIORS[name].at(10**6) is PRIORS[name]


@every_prior
def test_priors_are_values(name: str):
    prior = PRIORS[name]
    assert prior == dataclasses.replace(prior) != dataclasses.replace(prior, dim=DIM + 2)
    assert hash(prior) == hash(dataclasses.replace(prior))
    with pytest.raises(dataclasses.FrozenInstanceError):
        prior.dim = 2  # type: ignore[misc]


def test_the_interface_alone_is_no_prior():
    with pytest.raises(TypeError, match="abstract"):
        Prior(5)  # type: ignore[abstract]


# Normal


@pytest.mark.parametrize("std", [0.25, 1.0, 2.0])
def test_normal_prior_follows_its_distribution(std: float, rng: torch.Generator):
    z = NormalPrior(50, std=std).sample(400, generator=rng, dtype=torch.float64)
    distance = reference.kolmogorov_smirnov(z.flatten().tolist(), lambda x: reference.normal_cdf(x / std))
    assert distance < math.sqrt(math.log(2 / 1e-6) / (2 * z.numel()))
    assert NormalPrior(5, std=std).variance.tolist() == [std**2] * 5


def test_the_default_is_the_standard_normal(rng: torch.Generator):
    z = NormalPrior(5).sample(3, generator=rng)
    assert torch.equal(z, torch.randn(3, 5, generator=rng.manual_seed(0)))


def test_a_prior_shows_its_arguments():
    assert repr(NormalPrior(5, std=2.0)) == "NormalPrior(dim=5, std=2.0)"


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan])
def test_rejects_a_standard_deviation_that_is_not_positive(std: float):
    with pytest.raises(ValueError, match=rf"^NormalPrior: `std` must be greater than 0, but got std={std}\.$"):
        NormalPrior(5, std=std)
    with pytest.raises(ValueError, match=r"^NormalPrior: `std` must be finite, but got std=inf\.$"):
        NormalPrior(3, std=math.inf)


# Normal, of varying variance


def test_an_annealed_prior_goes_through_its_milestones_in_straight_lines():
    prior = AnnealedNormalPrior(3, milestones=((10, 2.0), (20, 1.0), (40, 1.5)))
    variances = [prior.at(step).variance[0].item() for step in (0, 10, 15, 20, 25, 40, 1000)]
    assert variances == pytest.approx([2, 2, 1.5, 1, 1.125, 1.5, 1.5], rel=1e-14)
    assert {type(prior.at(step)) for step in range(50)} == {NormalPrior}


def test_neighboring_milestones_make_a_jump():
    prior = AnnealedNormalPrior(3, milestones=((99, 2.0), (100, 1.0)))
    assert [round(prior.at(step).variance[0].item(), 9) for step in (1, 99, 100, 200)] == [2, 2, 1, 1]


def test_an_annealed_prior_is_drawn_from_as_what_it_ends_with(rng: torch.Generator):
    prior = AnnealedNormalPrior(3, milestones=((0, 2.0), (5, 0.25)))
    final = NormalPrior(3, std=0.5)
    assert prior.final == final
    assert torch.equal(prior.sample(4, generator=rng), final.sample(4, generator=rng.manual_seed(0)))
    assert (prior.support, prior.mean.tolist()) == (final.support, final.mean.tolist())
    assert prior.variance.tolist() == final.variance.tolist()


def test_a_single_milestone_is_a_constant_variance():
    prior = AnnealedNormalPrior(3, milestones=((7, 4.0),))
    assert prior.at(0) == prior.at(7) == prior.at(9) == NormalPrior(3, std=2.0)


@pytest.mark.parametrize("milestones", [(), ((0, 2.0), (0, 1.0)), ((5, 2.0), (4, 1.0)), ((0, 2.0), (math.nan, 1.0))])
def test_rejects_milestones_that_do_not_go_forward(milestones: tuple[tuple[int, float], ...]):
    pattern = r"^AnnealedNormalPrior: `milestones` must be one or more \(step, variance\) pairs with increasing steps, "
    with pytest.raises(ValueError, match=pattern):
        AnnealedNormalPrior(3, milestones=milestones)


def test_milestones_of_lists_make_an_equal_prior():
    prior = AnnealedNormalPrior(3, milestones=[[0, 2.0], [5, 1.0]])
    assert prior == AnnealedNormalPrior(3, milestones=((0, 2.0), (5, 1.0)))
    assert hash(prior) == hash(AnnealedNormalPrior(3, milestones=((0, 2.0), (5, 1.0))))


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf])
def test_rejects_milestones_without_variance(variance: float):
    rule = r"\(step, variance\) pairs with variances greater than 0 and finite"
    pattern = rf"^AnnealedNormalPrior: `milestones` must be {rule}, but got "
    with pytest.raises(ValueError, match=pattern):
        AnnealedNormalPrior(3, milestones=((0, 1.0), (5, variance)))


def test_equal_bounds_of_the_variance_are_the_plain_normal(rng: torch.Generator):
    z = VariableVariancePrior(3, lowest_variance=4.0, highest_variance=4.0).sample(5, generator=rng)
    assert torch.equal(z, NormalPrior(3, std=2.0).sample(5, generator=rng.manual_seed(0)))


@pytest.mark.parametrize(
    ("lowest", "highest", "message"),
    [
        (0.0, 1.0, "`lowest_variance` must be greater than 0, but got lowest_variance=0.0."),
        (2.0, 1.0, "`highest_variance` must be finite and at least lowest_variance=2.0, but got highest_variance=1.0."),
        (
            2.0,
            math.inf,
            "`highest_variance` must be finite and at least lowest_variance=2.0, but got highest_variance=inf.",
        ),
    ],
)
def test_rejects_bounds_of_the_variance_in_the_wrong_order(lowest: float, highest: float, message: str):
    with pytest.raises(ValueError, match=f"^VariableVariancePrior: {re.escape(message)}$"):
        VariableVariancePrior(3, lowest_variance=lowest, highest_variance=highest)


# Mixed and spherical


def test_rejects_an_odd_dimension_to_halve():
    with pytest.raises(ValueError, match=r"^NormalBernoulliPrior: `dim` must be even, but got dim=5\.$"):
        NormalBernoulliPrior(5)


def test_the_first_half_is_normal_and_the_second_bernoulli(samples: dict[str, torch.Tensor]):
    z = samples["normal and bernoulli"]
    assert z[:, : DIM // 2].unique().numel() == COUNT * DIM // 2
    assert z[:, DIM // 2 :].unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 0.01)]
)
def test_spherical_latents_have_a_mean_square_of_1(dtype: torch.dtype, tolerance: float, rng: torch.Generator):
    z = SphericalPrior(512).sample(20, generator=rng, dtype=dtype).double()
    assert (z.square().mean(dim=1) - 1).abs().max() < tolerance


def test_one_spherical_dimension_is_plus_or_minus_1(rng: torch.Generator):
    assert SphericalPrior(1).sample(50, generator=rng).unique().tolist() == [-1, 1]


def test_narrow_uniform_numbers_are_drawn_wide(rng: torch.Generator):
    """Drawn in bfloat16, which rounds them down, their mean would be -0.004."""
    z = UniformPrior(8).sample(2**18, dtype=torch.bfloat16, generator=rng)
    assert abs(z.double().mean().item()) < 1.5e-3  # four standard deviations


@pytest.mark.parametrize(
    ("dim", "error", "rule"),
    [
        (1.5, TypeError, "`dim` must be a whole number, but got dim of type float."),
        (math.inf, TypeError, "`dim` must be a whole number, but got dim of type float."),
        (True, TypeError, "`dim` must be a whole number, but got dim of type bool."),
        (2**63, ValueError, f"`dim` must be less than 2**63, but got dim={2**63}."),
    ],
)
def test_a_dim_that_no_tensor_has_is_refused(dim: float, error: type[Exception], rule: str):
    for prior in (NormalPrior, UniformPrior, BernoulliPrior):
        with pytest.raises(error, match=f"^{re.escape(f'{prior.__name__}: {rule}')}$"):
            prior(dim)


def test_a_batch_size_that_no_tensor_has_is_refused():
    with pytest.raises(ValueError, match=r"^NormalPrior: `batch_size` must be at least 0, but got batch_size=-1\.$"):
        NormalPrior(3).sample(-1)
    with pytest.raises(TypeError, match=r"^NormalPrior: `batch_size` must be a whole number"):
        NormalPrior(3).sample(1.5)
    assert NormalPrior(3).sample(0).shape == (0, 3)
