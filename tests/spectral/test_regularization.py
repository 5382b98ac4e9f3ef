import copy
import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_blocks import clamp_sigma, frozen_power_iteration, sigma_regularization, spectral_norm
from tests.spectral.known_values import SIGMAS, plain_linear
from tests.spectral.normalized import original_of, tracker_of


def penalized_model(rng: torch.Generator) -> nn.Sequential:
    other = clamp_sigma(plain_linear(rng, [1.0, 0.8, 0.2, 0.1]), ratio=math.inf, warmup_iterations=200, generator=rng)
    layer = spectral_norm(plain_linear(rng), num_singular_values=2, warmup_iterations=200, generator=rng)
    return nn.Sequential(layer, nn.ReLU(), other, nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"target": 2.0}, (3 - 2) ** 2 + (1 - 2) ** 2), ({"ratio": 1.1}, (3 - 2.2) ** 2 + (1 - 0.88) ** 2)],
)
def test_the_penalty_sums_squared_distances_over_followed_weights(
    options: dict[str, float], expected: float, rng: torch.Generator
):
    assert sigma_regularization(penalized_model(rng), **options).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("options", [{"target": 2.0}, {"ratio": 1.1}])
def test_the_gradient_of_the_penalty_moves_the_first_singular_value_alone(
    options: dict[str, float], rng: torch.Generator
):
    model = penalized_model(rng)
    sigma_regularization(model, **options).backward()
    for layer, sigmas in ((model[0], SIGMAS), (model[2], [1.0, 0.8])):
        u, _, vt = np.linalg.svd(original_of(layer).detach().numpy())
        distance = sigmas[0] - (options["target"] if "target" in options else options["ratio"] * sigmas[1])
        expected = 2 * distance * np.outer(u[:, 0], vt[0])
        np.testing.assert_allclose(original_of(layer).grad, expected, atol=1e-6)


def test_the_penalty_agrees_with_finite_differences(rng: torch.Generator):
    layer = spectral_norm(plain_linear(rng), generator=rng).eval()

    def penalty(weight: Tensor) -> Tensor:
        with (
            frozen_power_iteration(layer),
            torch.nn.utils.stateless._reparametrize_module(layer, {"parametrizations.weight.original": weight}),
        ):
            return sigma_regularization(layer, target=2.0)

    assert torch.autograd.gradcheck(penalty, original_of(layer).detach().clone().requires_grad_())


def test_descending_the_penalty_brings_the_largest_singular_value_to_the_target(rng: torch.Generator):
    layer = spectral_norm(plain_linear(rng), generator=rng)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        sigma_regularization(layer, target=2.5).backward()
        optimizer.step()
    raw = np.linalg.svd(original_of(layer).detach().numpy(), compute_uv=False)
    np.testing.assert_allclose(raw, [2.5, *SIGMAS[1:]], atol=1e-5)


def test_the_penalty_counts_as_a_read(rng: torch.Generator):
    penalized = spectral_norm(plain_linear(rng), warmup_iterations=1, generator=rng)
    read = copy.deepcopy(penalized)
    for layer in (penalized, read):
        with torch.no_grad():
            original_of(layer).mul_(1.1).add_(0.05)
    sigma_regularization(penalized, target=1.0)
    _ = read.weight
    assert torch.equal(tracker_of(penalized).u, tracker_of(read).u)
    before = tracker_of(penalized).u.clone()
    _ = penalized.weight
    assert torch.equal(tracker_of(penalized).u, before)


def test_a_weight_with_one_singular_value_is_left_out_of_a_ratio(rng: torch.Generator):
    model = penalized_model(rng)
    expected = sigma_regularization(model, ratio=1.1)
    model.append(spectral_norm(nn.Linear(4, 1).double()))
    assert torch.equal(sigma_regularization(model, ratio=1.1), expected)
    assert sigma_regularization(model, target=1.1) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of `target` and `ratio` must be given, but got target=None, ratio=None."),
        ({"target": 0}, "`target` must be greater than 0, but got target=0."),
        (
            {"ratio": 2},
            "`ratio` must be used where two singular values are followed, but got ratio=2. "
            "Register 1.weight with num_singular_values=2.",
        ),
    ],
)
def test_rejects_a_penalty_that_cannot_be_computed(options: dict[str, float], message: str):
    model = nn.Sequential(nn.ReLU(), spectral_norm(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=f"^{re.escape(f'sigma_regularization: {message}')}$"):
        sigma_regularization(model, **options)


def test_rejects_a_penalty_on_a_model_of_which_nothing_is_followed():
    message = (
        "sigma_regularization: `model` must be a module whose singular values are followed, but got model='Linear'. "
        "Register spectral_norm or clamp_sigma."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sigma_regularization(nn.Linear(2, 2), target=1)
