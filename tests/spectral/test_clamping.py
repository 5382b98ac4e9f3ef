import copy
import math
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import (
    SigmaClamp,
    advance_power_iteration,
    clamp_sigma,
    spectral_norm,
)
from tests.reference import spectral as reference
from tests.spectral.known_values import SIGMAS, give_singular_values, plain_linear
from tests.spectral.normalized import original_of, tracker_of

KINDS = {
    "linear": (lambda: nn.Linear(5, 4), 0),
    "conv2d_in_channels_last": (lambda: nn.Conv2d(3, 4, (2, 3)).to(memory_format=torch.channels_last), 0),
    "transposed_conv2d": (lambda: nn.ConvTranspose2d(3, 4, (2, 3)), 1),
}


@pytest.fixture(params=KINDS)
def layer(request: pytest.FixtureRequest, rng: torch.Generator) -> nn.Module:
    """A layer whose weight has the singular values SIGMAS."""
    make, dim = KINDS[request.param]
    layer = make().double()
    give_singular_values(layer, SIGMAS, rng, dim)
    return layer


def matrix_of(layer: nn.Module, weight: Tensor) -> np.ndarray:
    return reference.as_matrix(weight.detach().numpy(), tracker_of(layer).dim)


def singular_values(layer: nn.Module) -> np.ndarray:
    return np.linalg.svd(matrix_of(layer, layer.weight), compute_uv=False)


# --- the clamp ---


@pytest.mark.parametrize(
    ("options", "bound"),
    [({"maximum": 2.5}, 2.5), ({"maximum": 2.0}, 2.0), ({"ratio": 1.2}, 2.4), ({"ratio": 1.0}, 2.0)],
)
def test_a_bound_between_the_two_largest_values_sets_the_first_and_leaves_the_rest(
    layer: nn.Module, options: dict[str, float], bound: float, rng: torch.Generator
):
    clamp_sigma(layer, **options, warmup_iterations=200, generator=rng)
    np.testing.assert_allclose(singular_values(layer), [bound, *SIGMAS[1:]], atol=1e-6)
    expected = reference.clamp_first_singular_value(matrix_of(layer, original_of(layer)), bound)
    np.testing.assert_allclose(matrix_of(layer, layer.weight), expected, atol=1e-6)


@pytest.mark.parametrize("options", [{"maximum": 3.1}, {"maximum": math.inf}, {"ratio": 1.6}, {"ratio": math.inf}])
def test_a_bound_above_the_largest_value_leaves_the_weight_alone(
    layer: nn.Module, options: dict[str, float], rng: torch.Generator
):
    clamp_sigma(layer, **options, warmup_iterations=200, generator=rng)
    assert torch.equal(layer.weight, original_of(layer))


@pytest.mark.parametrize("options", [{"maximum": 0.7}, {"ratio": 0.35}])
def test_a_bound_below_the_second_value_lowers_the_first_direction_alone(
    layer: nn.Module, options: dict[str, float], rng: torch.Generator
):
    clamp_sigma(layer, **options, warmup_iterations=200, generator=rng)
    np.testing.assert_allclose(singular_values(layer), [2.0, 1.2, 0.7, 0.5], atol=1e-6)
    expected = reference.clamp_first_singular_value(matrix_of(layer, original_of(layer)), 0.7)
    np.testing.assert_allclose(matrix_of(layer, layer.weight), expected, atol=1e-6)


@given(
    out=st.integers(2, 6), rest=st.integers(2, 6), place=st.floats(0, 1), fixed=st.booleans(), seed=st.integers(0, 99)
)
def test_any_bound_between_the_two_largest_values_becomes_the_largest(
    out: int, rest: int, place: float, fixed: bool, seed: int
):
    rng = torch.Generator().manual_seed(seed)
    layer = nn.Linear(rest, out).double()
    sigmas = [2.0, *sorted(torch.rand(min(out, rest) - 1, generator=rng).add(0.2).tolist(), reverse=True)]
    give_singular_values(layer, sigmas, rng)
    bound = sigmas[1] + place * (sigmas[0] - sigmas[1])
    # Power iteration finds the second value only as fast as the gap to the third allows, so it is given exactly.
    clamp_sigma(layer, **({"maximum": bound} if fixed else {"ratio": bound / sigmas[1]}), generator=rng)
    u, _, vt = np.linalg.svd(original_of(layer).detach().numpy())
    rows = len(tracker_of(layer).u)
    tracker_of(layer).u.copy_(torch.from_numpy(u.T[:rows]))
    tracker_of(layer).v.copy_(torch.from_numpy(vt[:rows]))
    np.testing.assert_allclose(singular_values(layer), [bound, *sigmas[1:]], atol=1e-6)


def test_training_toward_a_weight_beyond_the_bound_stops_at_the_bound(rng: torch.Generator):
    target = plain_linear(rng).weight.detach()
    layer = clamp_sigma(plain_linear(rng, [0.4, 0.3, 0.2, 0.1]), maximum=2.5, generator=rng)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (layer.weight - target).square().sum().backward()
        optimizer.step()
    np.testing.assert_allclose(singular_values(layer), [2.5, *SIGMAS[1:]], atol=1e-3)


# --- its gradient ---


@pytest.mark.parametrize("maximum", [2.5, 0.7, 4.0])
def test_gradients_agree_with_finite_differences_twice(layer: nn.Module, maximum: float, rng: torch.Generator):
    clamp = tracker_of(clamp_sigma(layer, maximum=maximum, generator=rng))
    weight = original_of(layer).detach().clone(memory_format=torch.preserve_format).requires_grad_()
    assert torch.autograd.gradcheck(clamp, weight)
    assert torch.autograd.gradgradcheck(clamp, weight)


@pytest.mark.parametrize("ratio", [1.2, 0.35, 1.6])
def test_the_gradient_of_a_ratio_is_that_of_a_constant_bound(layer: nn.Module, ratio: float, rng: torch.Generator):
    fixed = copy.deepcopy(layer)
    clamp_sigma(layer, ratio=ratio, warmup_iterations=200, generator=rng)
    clamp_sigma(fixed, maximum=ratio * SIGMAS[1], generator=rng)
    for vectors in ("u", "v"):
        getattr(tracker_of(fixed), vectors).copy_(getattr(tracker_of(layer), vectors)[:1])
    upstream = torch.randn(layer.weight.shape, dtype=torch.float64, generator=rng)
    for candidate in (layer, fixed):
        (candidate.weight * upstream).sum().backward()
    torch.testing.assert_close(original_of(layer).grad, original_of(fixed).grad, atol=1e-12, rtol=0)


def test_where_the_clamp_acts_no_gradient_is_left_along_the_first_direction(rng: torch.Generator):
    layer = clamp_sigma(plain_linear(rng), maximum=2.5, generator=rng)
    layer(torch.randn(3, 5, dtype=torch.float64, generator=rng)).square().sum().backward()
    u, v = tracker_of(layer).u[0], tracker_of(layer).v[0]
    assert (u @ original_of(layer).grad @ v).item() == pytest.approx(0, abs=1e-12)
    assert original_of(layer).grad.abs().max() > 0.1


# --- with spectral norm ---


def test_registered_before_spectral_norm_the_raw_weight_is_clamped_and_the_result_normalized(rng: torch.Generator):
    layer = clamp_sigma(plain_linear(rng), maximum=2.5, warmup_iterations=200, generator=rng)
    spectral_norm(layer, warmup_iterations=200, generator=rng)
    expected = np.array([2.5, *SIGMAS[1:]]) / 2.5
    np.testing.assert_allclose(singular_values(layer), expected, atol=1e-6)


def test_registered_after_spectral_norm_the_normalized_weight_is_clamped(rng: torch.Generator):
    layer = spectral_norm(plain_linear(rng), warmup_iterations=200, generator=rng)
    clamp_sigma(layer, maximum=0.8, warmup_iterations=200, generator=rng)
    np.testing.assert_allclose(singular_values(layer), [0.8, 2 / 3, 0.4, 1 / 6], atol=1e-6)


def test_both_advance_once_per_update_however_it_is_noticed(rng: torch.Generator):
    by_reading = clamp_sigma(plain_linear(rng), ratio=1.2, warmup_iterations=2, generator=rng)
    spectral_norm(by_reading, warmup_iterations=2, generator=rng)
    by_call = copy.deepcopy(by_reading)
    for _ in range(3):
        for layer in (by_reading, by_call):
            with torch.no_grad():
                original_of(layer).mul_(1.1).add_(0.05)
        _ = by_reading.weight, by_reading.weight
        advance_power_iteration(by_call)
        _ = by_call.weight
        torch.testing.assert_close(dict(by_call.state_dict()), dict(by_reading.state_dict()), atol=1e-12, rtol=0)


# --- state, types, compilation ---


def test_the_names_and_shapes_in_the_state_dict_are_fixed():
    layer = spectral_norm(clamp_sigma(nn.Conv2d(3, 4, 2), ratio=2))
    assert {key: tuple(value.shape) for key, value in layer.state_dict().items()} == {
        "bias": (4,),
        "parametrizations.weight.original": (4, 3, 2, 2),
        "parametrizations.weight.0.u": (4, 4),
        "parametrizations.weight.0.v": (4, 12),
        "parametrizations.weight.1.u": (1, 4),
        "parametrizations.weight.1.v": (1, 12),
    }


def test_a_loaded_state_gives_the_same_weight(rng: torch.Generator):
    source, layer = (clamp_sigma(plain_linear(rng), ratio=1.2, warmup_iterations=1, generator=rng) for _ in range(2))
    assert not torch.equal(layer.weight, source.weight)
    layer.load_state_dict(source.state_dict())
    assert torch.equal(layer.weight, source.weight)


def test_a_narrow_weight_is_clamped_in_float32_also_under_autocast(rng: torch.Generator):
    wide = nn.Linear(16, 12)
    narrow = copy.deepcopy(wide).bfloat16()
    with torch.no_grad():
        wide.weight.copy_(narrow.weight)
    for layer in (wide, narrow):
        clamp_sigma(layer, ratio=1.01, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(narrow.weight, wide.weight.bfloat16())


@pytest.mark.parametrize("options", [{"maximum": 1.0}, {"ratio": math.inf}])
def test_a_weight_of_zeros_stays_zero(options: dict[str, float]):
    layer = nn.Linear(3, 4)
    nn.init.zeros_(layer.weight)
    assert not clamp_sigma(layer, **options).weight.any()


def test_it_registers_and_runs_on_the_meta_device():
    layer = clamp_sigma(nn.Linear(3, 4, device="meta"), ratio=2)
    assert layer(torch.ones(2, 3, device="meta")).shape == (2, 4)


def test_it_compiles_as_one_graph(rng: torch.Generator):
    layer = spectral_norm(clamp_sigma(nn.Conv2d(3, 4, 2), ratio=1.01, generator=rng), generator=rng)
    x = torch.randn(2, 3, 4, 4, generator=rng)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), layer(x))


@pytest.mark.parametrize(("size", "followed"), [(3, 3), (12, 8)])
def test_follows_eight_singular_values_or_all_that_there_are(size: int, followed: int):
    assert tracker_of(clamp_sigma(nn.Linear(size, 20), ratio=2)).u.shape == (followed, 20)


def test_rejects_to_follow_one_singular_value_for_a_ratio():
    message = "SigmaClamp: `num_singular_values` must be at least 2 with `ratio`, but got num_singular_values=1."
    with pytest.raises(ValueError, match=re.escape(message)):
        clamp_sigma(nn.Linear(3, 4), ratio=2, num_singular_values=1)


def test_settings_are_shown():
    shown = [
        "SigmaClamp(maximum=2, num_singular_values=3, n_power_iterations=1, dim=0)",
        "SigmaClamp(ratio=2, num_singular_values=3, n_power_iterations=1, dim=0)",
    ]
    options = [{"maximum": 2}, {"ratio": 2}]
    assert [repr(tracker_of(clamp_sigma(nn.Linear(3, 4), **option))) for option in options] == shown


# --- warnings and errors ---


@pytest.mark.parametrize("layer", [nn.Linear(5, 1), nn.Conv2d(1, 5, 1), nn.ConvTranspose2d(5, 1, 2)])
def test_a_ratio_leaves_a_weight_with_one_singular_value_alone_with_one_warning(layer: nn.Module):
    before = type(layer)
    with pytest.warns(UserWarning, match="one singular value") as caught:
        assert clamp_sigma(layer, ratio=2) is layer
    message = f"clamp_sigma: `weight` of {before.__name__} has one singular value; it is left alone with `ratio`."
    assert [str(warning.message) for warning in caught] == [message]
    assert caught[0].filename == __file__
    assert type(layer) is before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clamp_sigma(layer, maximum=2)


@pytest.mark.parametrize("owner", [clamp_sigma, lambda layer, **bounds: SigmaClamp(layer.weight, **bounds)])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of `maximum` and `ratio` must be given, but got maximum=None, ratio=None."),
        ({"maximum": 1, "ratio": 2}, "exactly one of `maximum` and `ratio` must be given, but got maximum=1, ratio=2."),
        ({"maximum": 0}, "`maximum` must be greater than 0, but got maximum=0."),
        ({"ratio": -1}, "`ratio` must be greater than 0, but got ratio=-1."),
    ],
)
def test_rejects_anything_but_one_positive_bound(owner, options: dict[str, float], message: str):
    with pytest.raises(ValueError, match=f"^(clamp_sigma|SigmaClamp): {re.escape(message)}$"):
        owner(nn.Linear(3, 4), **options)


@pytest.mark.parametrize(
    ("layer", "name", "options", "message"),
    [
        (
            nn.Linear(2, 2),
            "w",
            {},
            "clamp_sigma: `name` must be an initialized parameter of Linear (bias, weight), but got name='w'.",
        ),
        (
            clamp_sigma(nn.Linear(2, 2), maximum=1),
            "weight",
            {},
            "clamp_sigma: `name` must be a parameter without SigmaClamp, but got name='weight'.",
        ),
        (
            nn.Linear(2, 2),
            "bias",
            {},
            "clamp_sigma: `weight` must be of shape (out, in, ...), but got weight of shape (2,).",
        ),
        (nn.Linear(2, 2), "weight", {"dim": 2}, "clamp_sigma: `dim` must be between -2 and 1, but got dim=2."),
    ],
)
def test_rejects_what_cannot_be_clamped(layer: nn.Module, name: str, options: dict[str, int], message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clamp_sigma(layer, name, ratio=2, **options)
