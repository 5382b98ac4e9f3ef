"""What spectral norm computes; when its vectors advance is the subject of test_tracking.py."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_parametrizations
from torch.nn.utils.parametrize import register_parametrization

from gan_blocks import (
    advance_power_iteration,
    estimated_singular_values,
    fold_spectral_norm,
    spectral_norm,
)
from tests.reference import spectral as reference
from tests.spectral.normalized import original_of, tracker_of

# Every kind of layer, with the shape (out, rest) of its weight as a matrix.
LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), (4, 5)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 2), (4, 6)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 2), (4, 12)),
    "conv2d_in_channels_last": (lambda: nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last), (4, 12)),
    "grouped_conv2d": (lambda: nn.Conv2d(4, 6, 2, groups=2), (6, 8)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2), (4, 16)),
    "transposed_conv1d": (lambda: nn.ConvTranspose1d(3, 4, 2), (4, 6)),
    "transposed_conv2d": (lambda: nn.ConvTranspose2d(3, 4, 2), (4, 12)),
    "transposed_conv3d": (lambda: nn.ConvTranspose3d(2, 4, 2), (4, 16)),
    "embedding": (lambda: nn.Embedding(7, 3), (7, 3)),
    "bilinear": (lambda: nn.Bilinear(2, 3, 4), (4, 6)),
}


@pytest.fixture(params=LAYERS)
def plain(request: pytest.FixtureRequest, rng: torch.Generator) -> nn.Module:
    layer = LAYERS[request.param][0]().double()
    fill(layer, rng)
    layer.expected_shape = LAYERS[request.param][1]
    return layer


def fill(layer: nn.Module, rng: torch.Generator) -> None:
    with torch.no_grad():
        layer.weight.normal_(generator=rng)


def as_matrix(layer: nn.Module) -> np.ndarray:
    return reference.as_matrix(original_of(layer).detach().numpy(), tracker_of(layer).dim)


# --- the equation ---


def test_the_weight_is_divided_by_the_estimate_as_in_the_paper(plain: nn.Module, rng: torch.Generator):
    layer = spectral_norm(plain, warmup_iterations=2, generator=rng)
    u, v = tracker_of(layer).u[0].numpy(), tracker_of(layer).v[0].numpy()
    expected = reference.spectral_norm(original_of(layer).detach().numpy(), u, v, tracker_of(layer).dim, 1e-4)
    assert as_matrix(layer).shape == plain.expected_shape
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, atol=1e-12)


def test_the_gradient_flows_through_sigma_as_in_the_paper(plain: nn.Module, rng: torch.Generator):
    layer = spectral_norm(plain, warmup_iterations=2, generator=rng)
    upstream = torch.randn(layer.weight.shape, dtype=torch.float64, generator=rng)
    (layer.weight * upstream).sum().backward()
    u, v, dim = tracker_of(layer).u[0].numpy(), tracker_of(layer).v[0].numpy(), tracker_of(layer).dim
    expected = reference.spectral_norm_gradient(as_matrix(layer), u, v, reference.as_matrix(upstream.numpy(), dim))
    actual = reference.as_matrix(original_of(layer).grad.numpy(), dim)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_gradients_agree_with_finite_differences_twice(plain: nn.Module, rng: torch.Generator):
    tracker = tracker_of(spectral_norm(plain, generator=rng))
    weight = original_of(plain).detach().clone(memory_format=torch.preserve_format).requires_grad_()
    assert torch.autograd.gradcheck(tracker, weight)
    assert torch.autograd.gradgradcheck(tracker, weight)


def test_a_step_is_that_of_the_paper_for_every_kind_of_layer(plain: nn.Module, rng: torch.Generator):
    layer = spectral_norm(plain, warmup_iterations=0, generator=rng)
    expected = reference.power_step(as_matrix(layer), tracker_of(layer).u[0].numpy())
    advance_power_iteration(layer)
    np.testing.assert_allclose(tracker_of(layer).u[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(tracker_of(layer).v[0], expected[1], atol=1e-12)


@given(
    out=st.integers(1, 8),
    rest=st.integers(1, 8),
    kernel=st.integers(1, 3),
    scale=st.sampled_from([0.01, 1.0, 100.0]),
    seed=st.integers(0, 99),
)
def test_the_largest_singular_value_is_one_after_convergence(out: int, rest: int, kernel: int, scale: float, seed: int):
    rng = torch.Generator().manual_seed(seed)
    layer = nn.Conv1d(rest, out, kernel)
    with torch.no_grad():
        layer.weight.normal_(std=scale, generator=rng)
    spectral_norm(layer, warmup_iterations=200, generator=rng)
    assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)


def test_training_keeps_the_largest_singular_value_near_one(plain: nn.Module, rng: torch.Generator):
    layer = spectral_norm(plain, generator=rng)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
    target = torch.randn(layer.weight.shape, dtype=torch.float64, generator=rng)
    for _ in range(20):
        optimizer.zero_grad()
        (layer.weight - target).square().sum().backward()
        optimizer.step()
    weight = reference.as_matrix(layer.weight.detach().numpy(), tracker_of(layer).dim)
    assert np.linalg.norm(weight, 2) == pytest.approx(1, abs=1e-2)


# --- against torch's own parametrization ---


def test_values_and_gradients_equal_those_of_torch_for_the_same_vectors(plain: nn.Module, rng: torch.Generator):
    theirs = torch_parametrizations.spectral_norm(copy.deepcopy(plain), eps=1e-4).eval()
    ours = spectral_norm(plain, warmup_iterations=0, generator=rng)
    their_tracker = theirs.parametrizations.weight[0]
    tracker_of(ours).u.copy_(their_tracker._u[None])
    tracker_of(ours).v.copy_(their_tracker._v[None])
    upstream = torch.randn(ours.weight.shape, dtype=torch.float64, generator=rng)
    for layer in (theirs, ours):
        (layer.weight * upstream).sum().backward()
    torch.testing.assert_close(ours.weight, theirs.weight, atol=1e-13, rtol=0)
    torch.testing.assert_close(original_of(ours).grad, original_of(theirs).grad, atol=1e-13, rtol=0)


# --- several singular values ---


def test_tracked_sigmas_are_those_of_the_raw_weight_before_convergence_too(plain: nn.Module, rng: torch.Generator):
    layer = spectral_norm(plain, num_singular_values=2, warmup_iterations=1, generator=rng)
    u, v = tracker_of(layer).u.numpy(), tracker_of(layer).v.numpy()
    expected = [reference.sigma(as_matrix(layer), u[i], v[i]) for i in range(2)]
    sigmas = estimated_singular_values(layer)
    assert not sigmas.requires_grad
    np.testing.assert_allclose(sigmas, expected, atol=1e-12)


def test_three_tracked_sigmas_converge_to_the_largest_singular_values(plain: nn.Module, rng: torch.Generator):
    layer = spectral_norm(plain, num_singular_values=3, generator=rng)
    for _ in range(2):
        with torch.no_grad():
            original_of(layer).add_(torch.randn(original_of(layer).shape, dtype=torch.float64, generator=rng))
        advance_power_iteration(layer, n_power_iterations=200)
        expected = np.linalg.svd(as_matrix(layer), compute_uv=False)[:3]
        np.testing.assert_allclose(estimated_singular_values(layer), expected, rtol=1e-6)


def test_equal_leading_singular_values_are_all_found(rng: torch.Generator):
    layer = nn.Linear(6, 5).double()
    with torch.no_grad():
        nn.init.orthogonal_(layer.weight, gain=2.0, generator=rng)
    spectral_norm(layer, num_singular_values=3, generator=rng)
    torch.testing.assert_close(estimated_singular_values(layer), torch.full((3,), 2.0, dtype=torch.float64))


def test_following_more_singular_values_leaves_the_converged_weight_alone(rng: torch.Generator):
    one, three = (
        spectral_norm(nn.Linear(7, 5).double(), num_singular_values=count, warmup_iterations=0, generator=rng)
        for count in (1, 3)
    )
    three.weight = original_of(one).detach().clone()
    for layer in (one, three):
        advance_power_iteration(layer, n_power_iterations=300)
    torch.testing.assert_close(one.weight, three.weight, atol=1e-6, rtol=0)


# --- zero, small and narrow weights ---


@pytest.mark.parametrize("count", [1, 2])
def test_a_weight_of_zeros_stays_zero_and_is_normalized_once_it_grows(rng: torch.Generator, count: int):
    layer = nn.Linear(8, 6)
    nn.init.zeros_(layer.weight)
    spectral_norm(layer, num_singular_values=count, generator=rng)
    assert not layer.weight.any()
    layer.weight.sum().backward()
    assert original_of(layer).grad.isfinite().all()
    with torch.no_grad():
        original_of(layer).add_(torch.randn(6, 1, generator=rng) * torch.randn(8, generator=rng) * 1e-3)
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-5)


def test_a_weight_that_stayed_below_eps_is_normalized_once_it_grows(rng: torch.Generator):
    layer = nn.Linear(8, 6)
    with torch.no_grad():
        layer.weight.normal_(std=1e-9, generator=rng)
    spectral_norm(layer, generator=rng)
    torch.testing.assert_close(layer.weight, original_of(layer) / 1e-4)
    advance_power_iteration(layer, n_power_iterations=50)
    with torch.no_grad():
        original_of(layer).add_(torch.randn(6, 1, generator=rng) * torch.randn(8, generator=rng))
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("eps", [1e-4, 0.5])
def test_eps_is_the_smallest_divisor_and_stops_the_gradient_through_sigma(eps: float):
    layer = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[eps / 2, 0, 0], [0, eps / 4, 0]]))
    spectral_norm(layer, eps=eps)
    layer.weight.sum().backward()
    torch.testing.assert_close(layer.weight, original_of(layer) / eps)
    torch.testing.assert_close(original_of(layer).grad, torch.full((2, 3), 1 / eps, dtype=torch.float64))


def test_float32_is_the_narrowest_type_of_the_vectors_and_of_sigma(rng: torch.Generator):
    wide = nn.Linear(64, 48)
    fill(wide, rng)
    narrow = copy.deepcopy(wide).bfloat16()
    with torch.no_grad():
        wide.weight.copy_(narrow.weight)
    for layer in (wide, narrow):
        spectral_norm(layer, generator=torch.Generator().manual_seed(0))
    assert tracker_of(narrow).u.dtype == torch.float32
    assert narrow.weight.dtype == torch.bfloat16
    torch.testing.assert_close(estimated_singular_values(narrow), estimated_singular_values(wide))
    torch.testing.assert_close(narrow.weight, wide.weight.bfloat16(), atol=0, rtol=0)


def test_autocast_changes_neither_the_weight_nor_the_vectors(rng: torch.Generator):
    layer = nn.Conv2d(8, 16, 3)
    fill(layer, rng)
    spectral_norm(layer, num_singular_values=2, warmup_iterations=1, generator=rng)
    cast = copy.deepcopy(layer)
    for _ in range(2):
        with torch.no_grad():
            original_of(layer).mul_(1.5)
            original_of(cast).mul_(1.5)
        weight = layer.weight
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(cast.weight, weight, atol=0, rtol=0)
            torch.testing.assert_close(
                estimated_singular_values(cast), estimated_singular_values(layer), atol=0, rtol=0
            )
            assert cast(torch.ones(1, 8, 3, 3)).dtype == torch.bfloat16
    torch.testing.assert_close(dict(cast.state_dict()), dict(layer.state_dict()), atol=0, rtol=0)


def test_a_chosen_dim_is_the_one_read_as_out(rng: torch.Generator):
    layer = spectral_norm(nn.Linear(5, 4), dim=-1, generator=rng)
    assert tracker_of(layer).u.shape == (1, 5)
    assert tracker_of(layer).v.shape == (1, 4)


def test_the_random_start_is_drawn_from_the_generator_and_has_unit_rows():
    state = torch.get_rng_state()
    layers = [
        spectral_norm(
            nn.utils.skip_init(nn.Linear, 5, 4), warmup_iterations=0, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    first, second, third = (tracker_of(layer).u for layer in layers)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert first.norm().item() == pytest.approx(1)


# --- state, devices, compilation ---


@pytest.mark.parametrize("count", [1, 3])
def test_the_names_and_shapes_in_the_state_dict_are_fixed(count: int):
    layer = spectral_norm(nn.Conv2d(3, 4, 2), num_singular_values=count)
    assert {key: tuple(value.shape) for key, value in layer.state_dict().items()} == {
        "bias": (4,),
        "parametrizations.weight.original": (4, 3, 2, 2),
        "parametrizations.weight.0.u": (count, 4),
        "parametrizations.weight.0.v": (count, 12),
    }


def test_a_state_saved_in_one_memory_format_loads_in_another(rng: torch.Generator):
    layer = nn.Conv2d(3, 4, 2).double()
    fill(layer, rng)
    spectral_norm(layer, generator=rng)
    other = spectral_norm(nn.Conv2d(3, 4, 2).double().to(memory_format=torch.channels_last))
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other.weight, layer.weight, atol=1e-14, rtol=0)


def test_it_registers_and_runs_on_the_meta_device():
    layer = spectral_norm(nn.Conv2d(3, 4, 2, device="meta"), num_singular_values=2)
    advance_power_iteration(layer)
    with torch.no_grad():
        original_of(layer).mul_(2)
    assert layer(torch.ones(1, 3, 2, 2, device="meta")).shape == (1, 4, 1, 1)
    assert tracker_of(layer).u.is_meta
    source = spectral_norm(nn.Conv2d(3, 4, 2), num_singular_values=2)
    layer.to_empty(device="cpu").load_state_dict(source.state_dict())
    assert torch.equal(layer.weight, source.weight)


@pytest.mark.parametrize(("memory_format", "autocast"), [(torch.contiguous_format, False), (torch.channels_last, True)])
def test_it_compiles_as_one_graph_that_notices_an_update_once(memory_format, autocast: bool):
    net = nn.Sequential(spectral_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), spectral_norm(nn.Conv2d(4, 2, 1)))
    net.to(memory_format=memory_format)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    x = torch.ones(2, 3, 5, 5)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            assert torch.equal(compiled(x), net(x))
        with torch.no_grad():
            original_of(net[0]).mul_(1.5).add_(0.1)
        twin = copy.deepcopy(net)
        twin(x)
        for _ in range(2):
            compiled(x).sum().backward()
            torch.testing.assert_close(dict(net.state_dict()), dict(twin.state_dict()))


def test_settings_are_shown():
    layer = spectral_norm(nn.Linear(5, 4), num_singular_values=2, n_power_iterations=3, eps=0.01, dim=-1)
    shown = "SpectralNorm(num_singular_values=2, n_power_iterations=3, dim=1, eps=0.01)"
    assert repr(tracker_of(layer)) == shown


# --- folding ---


def test_folding_leaves_plain_layers_with_the_weights_of_evaluation(plain: nn.Module, rng: torch.Generator):
    layer = spectral_norm(plain, warmup_iterations=1, generator=rng)
    parameter, kind, keys = original_of(layer), type(plain).__bases__[0], {"weight", "bias"}
    with torch.no_grad():
        parameter.mul_(1.5).add_(0.1)
    expected = layer.eval().weight.detach().clone()
    assert fold_spectral_norm(layer.train()) is layer
    assert type(layer) is kind
    assert layer.weight is parameter
    assert set(layer.state_dict()) <= keys
    assert torch.equal(layer.weight, expected)


def test_folding_takes_all_layers_and_tensors_and_leaves_other_parametrizations():
    class Negative(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return -weight

    other = nn.Linear(2, 2)
    register_parametrization(other, "weight", Negative())
    behind = nn.Linear(2, 2)
    register_parametrization(behind, "weight", Negative())
    net = nn.Sequential(spectral_norm(nn.Linear(3, 2)), spectral_norm(behind), other).eval()
    x = torch.ones(1, 3)
    expected = net(x)
    torch.testing.assert_close(fold_spectral_norm(net)(x), expected)
    assert list(net.state_dict()) == [
        *("0.bias", "0.weight", "1.bias", "1.weight", "2.bias", "2.parametrizations.weight.original")
    ]


def test_a_tensor_of_a_copy_can_be_normalized_without_the_original_taking_part():
    layer = spectral_norm(nn.Bilinear(2, 3, 4))
    twin = copy.deepcopy(layer)
    twin.bias = nn.Parameter(torch.ones(4, 2))
    spectral_norm(twin, "bias")
    assert torch.equal(layer.bias, layer._parameters["bias"])
    assert estimated_singular_values(twin, "bias").item() == pytest.approx(8**0.5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_a_model_in_eval_mode_can_be_traced():
    net = nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.ReLU()).eval()
    x = torch.randn(2, 3)
    torch.testing.assert_close(torch.jit.trace(net, x)(x), net(x))
