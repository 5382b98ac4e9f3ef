import dataclasses
import math

import pytest
import torch

from gan_blocks import NormalPrior, Prior
from tests.reference import latents as reference


@pytest.mark.parametrize("std", [0.25, 1.0, 2.0])
def test_normal_prior_follows_its_distribution(std: float, rng: torch.Generator):
    z = NormalPrior(50, std=std).sample(400, generator=rng, dtype=torch.float64)
    distance = reference.kolmogorov_smirnov(z.flatten().tolist(), lambda x: reference.normal_cdf(x / std))
    # Exceeded with a probability below 1e-6 by a true sample (Massart's bound).
    assert distance < math.sqrt(math.log(2 / 1e-6) / (2 * z.numel()))


def test_normal_prior_states_the_moments_of_its_samples(rng: torch.Generator):
    prior = NormalPrior(5, std=2.0)
    z = prior.sample(40_000, generator=rng, dtype=torch.float64)
    standard_error = 1 / 40_000**0.5
    assert (z.mean(0) - prior.mean).abs().max() < 5 * 2 * standard_error
    assert (z.var(0) - prior.variance).abs().max() < 5 * 4 * 2**0.5 * standard_error
    assert prior.variance.tolist() == [4.0] * 5
    assert prior.support == (-math.inf, math.inf)


def test_the_default_is_the_standard_normal(rng: torch.Generator):
    z = NormalPrior(5).sample(3, generator=rng)
    assert torch.equal(z, torch.randn(3, 5, generator=rng.manual_seed(0)))


def test_the_same_generator_state_gives_the_same_latents_and_leaves_the_global_one_alone(rng: torch.Generator):
    before = torch.get_rng_state()
    first = NormalPrior(5, std=0.5).sample(3, generator=rng)
    assert torch.equal(first, NormalPrior(5, std=0.5).sample(3, generator=rng.manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_have_the_dtype_and_device_asked_for():
    z = NormalPrior(5, std=2.0).sample(3, device="meta", dtype=torch.bfloat16)
    assert (z.shape, z.dtype, z.device.type) == ((3, 5), torch.bfloat16, "meta")


def test_priors_are_values():
    assert NormalPrior(5) == NormalPrior(5, std=1.0) != NormalPrior(5, std=2.0)
    assert repr(NormalPrior(5, std=2.0)) == "NormalPrior(dim=5, std=2.0)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        NormalPrior(5).std = 2.0


def test_the_interface_alone_is_no_prior():
    with pytest.raises(TypeError, match="abstract"):
        Prior(5)


@pytest.mark.parametrize(("name", "value"), [("dim", 0), ("std", 0.0), ("std", -1.0), ("std", math.nan)])
def test_rejects_sizes_that_are_not_positive(name: str, value: float):
    arguments = {"dim": 5, name: value}
    pattern = rf"^NormalPrior: `{name}` must be greater than 0, but got {name}={value}\.$"
    with pytest.raises(ValueError, match=pattern):
        NormalPrior(**arguments)
