"""Updates are noticed by the content of the weight, whoever wrote it and however; what is no update is none."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from gan_blocks import (
    SpectralNorm,
    advance_power_iteration,
    estimated_singular_values,
    fold_spectral_norm,
    spectral_norm,
)
from tests.spectral.normalized import assert_same, largest, new_weight, original_of, registered, tracker_of, vectors_of

# --- updates ---


def by_data(layer: nn.Module) -> Callable[[], None]:
    def step() -> None:
        for parameter in layer.parameters():
            parameter.data.add_(parameter.grad, alpha=-1.0)

    return step


def by_a_vector(layer: nn.Module) -> Callable[[], None]:
    def step() -> None:
        parameters = list(layer.parameters())
        gradient = parameters_to_vector([parameter.grad for parameter in parameters])
        vector_to_parameters(parameters_to_vector(parameters) - gradient, parameters)

    return step


def by_new_parameters(layer: nn.Module) -> Callable[[], None]:
    def step() -> None:
        raw = original_of(layer)
        layer.parametrizations.weight.original = nn.Parameter(raw.detach() - raw.grad)

    return step


def by_other_memory(layer: nn.Module) -> Callable[[], None]:
    def step() -> None:
        for parameter in layer.parameters():
            parameter.data = parameter.data - parameter.grad

    return step


class DataOptimizer(torch.optim.Optimizer):
    """Writes as many published optimizers do."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.copy_(parameter.data - parameter.grad.data)


STEPS = {
    "data": by_data,
    "vector_to_parameters": by_a_vector,
    "new parameters": by_new_parameters,
    "new memory": by_other_memory,
    "optimizer": lambda layer: DataOptimizer(layer.parameters()).step,
    "torch": lambda layer: torch.optim.SGD(layer.parameters(), lr=1.0).step,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_norm_holds_whatever_writes_the_weight(step: Callable[[nn.Module], Callable[[], None]], seed: int):
    torch.manual_seed(seed)
    layer = spectral_norm(nn.Linear(64, 64, bias=False))
    x, target = torch.randn(32, 64), 3 * torch.randn(32, 64)
    take_step = step(layer)
    for _ in range(300):
        layer.zero_grad()
        F.mse_loss(layer(x), target).backward()
        take_step()
    layer(x)
    assert 0.99 < largest(layer) < 1.6


@pytest.mark.parametrize("fused", [False, True])
def test_noticing_equals_the_explicit_advance_bit_for_bit(fused: bool):
    torch.manual_seed(0)
    noticing = spectral_norm(nn.Linear(16, 16), num_singular_values=2)
    explicit = copy.deepcopy(noticing)
    x = torch.randn(8, 16)
    for layer in (noticing, explicit):
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05, fused=fused)
        for _ in range(10):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
            if layer is explicit:
                advance_power_iteration(layer)
    assert_same(dict(noticing.state_dict()), dict(explicit.state_dict()))


@registered
def test_a_change_where_the_vectors_are_zero_is_an_update(register):
    layer = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([4.0, 2.0, 1.0])))
    register(layer)
    with torch.no_grad():
        tracker_of(layer).u.copy_(torch.eye(3)[: len(tracker_of(layer).u)])
        tracker_of(layer).v.copy_(torch.eye(3)[: len(tracker_of(layer).v)])
    reference = tracker_of(layer).reference.clone()
    original_of(layer).data[2, 2] = 3.0
    layer(torch.ones(1, 3))
    assert not torch.equal(tracker_of(layer).reference, reference)


def test_an_update_that_changes_neither_the_norm_nor_the_first_image_is_an_update():
    layer = spectral_norm(nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        original_of(layer).copy_(torch.diag(torch.tensor([4.0, 3.0, 0.0])))
    advance_power_iteration(layer, n_power_iterations=100)
    before = tracker_of(layer).reference.clone()
    with torch.no_grad():
        original_of(layer).copy_(torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]]))
    layer(torch.ones(1, 3))
    assert not torch.equal(tracker_of(layer).reference, before)


def test_updates_too_small_to_see_add_up():
    layer = spectral_norm(nn.Linear(16, 16), warmup_iterations=1)
    before = vectors_of(layer)
    step = original_of(layer).detach() * torch.finfo(torch.float32).eps
    seen = []
    for _ in range(200):
        original_of(layer).data.add_(step)
        layer(torch.ones(1, 16))
        seen.append(not torch.equal(tracker_of(layer).u, before[0]))
    assert not seen[0]
    assert seen[-1]


def test_updates_too_small_to_see_add_up_alike_after_a_resume():
    run = spectral_norm(nn.Linear(16, 16), warmup_iterations=1)
    step = original_of(run).detach() * torch.finfo(torch.float32).eps

    def train(layer: nn.Module, steps: int) -> list[Tensor]:
        seen = []
        for _ in range(steps):
            original_of(layer).data.add_(step)
            layer(torch.ones(1, 16))
            seen.append(tracker_of(layer).u.clone())
        return seen

    train(run, 15)
    saved = copy.deepcopy(run.state_dict())
    resumed = spectral_norm(nn.Linear(16, 16))
    resumed.load_state_dict(saved)
    expected, actual = train(run, 100), train(resumed, 100)
    assert not torch.equal(expected[0], expected[-1])
    assert_same(actual, expected)


# --- what is no update ---


@registered
@pytest.mark.parametrize(
    "touch",
    [
        lambda layer: original_of(layer).data.copy_(original_of(layer).detach().clone()),
        lambda layer: original_of(layer).detach().mul_(1),
        lambda layer: layer.to(memory_format=torch.channels_last),
        lambda layer: layer.double(),
        lambda layer: setattr(
            layer.parametrizations.weight, "original", nn.Parameter(original_of(layer).detach().clone())
        ),
    ],
    ids=["copied", "multiplied by 1", "channels_last", "double", "replaced"],
)
def test_a_write_that_leaves_the_weight_is_no_update(register, touch: Callable[[nn.Module], Any]):
    layer = register(nn.Conv2d(32, 48, 3))
    layer(torch.ones(1, 32, 3, 3))
    before = [rows.double() for rows in vectors_of(layer)]
    touch(layer)
    layer(torch.ones(1, 32, 3, 3, dtype=original_of(layer).dtype))
    assert_same([rows.double() for rows in vectors_of(layer)], before)


@registered
def test_vectors_that_were_written_stay_until_the_weight_changes(register):
    layer = register(nn.Linear(4, 4))
    tracker = tracker_of(layer)
    tracker.u.copy_(torch.eye(4)[: len(tracker.u)])
    tracker.v.copy_(torch.eye(4)[: len(tracker.v)])
    before = vectors_of(layer)
    layer(torch.ones(1, 4))
    assert_same(vectors_of(layer), before)
    original_of(layer).data.mul_(1.1)
    layer(torch.ones(1, 4))
    assert not torch.equal(tracker.v, before[1])


def test_a_call_with_other_weights_of_the_same_values_leaves_the_vectors():
    layer = spectral_norm(nn.Linear(4, 4))
    before = vectors_of(layer)
    clones = {name: value.clone() for name, value in layer.named_parameters()}
    functional_call(layer, clones, (torch.ones(1, 4),))
    assert_same(vectors_of(layer), before)


def test_the_parametrization_itself_is_a_pure_function():
    tracker = SpectralNorm(torch.eye(3))
    before = tracker.u.clone()
    tracker(torch.randn(3, 3))
    assert_same(tracker.u, before)


# --- evaluation ---


@pytest.mark.parametrize("seed", range(10))
def test_a_weight_that_changed_before_an_evaluation_is_normalized_and_nothing_is_stored(seed: int):
    torch.manual_seed(seed)
    layer = nn.Linear(64, 64, bias=False)
    nn.init.normal_(layer.weight, std=1e-5)
    spectral_norm(layer)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    F.mse_loss(layer(torch.randn(32, 64)), torch.randn(32, 64)).backward()
    optimizer.step()
    before = [buffer.clone() for buffer in layer.buffers()]
    layer.eval()
    read = layer.weight.detach()
    assert largest(layer) < 2
    assert_same(list(layer.buffers()), before)
    layer.train()
    assert_same(layer.weight.detach(), read)  # what the next read in training mode gives as well


@registered
def test_an_entirely_new_weight_is_followed_in_evaluation(register):
    layer = register(nn.Linear(64, 64, bias=False)).eval()
    original_of(layer).data.copy_(new_weight(layer))
    assert largest(layer) < 20 * (register is not spectral_norm) + 2


@registered
def test_a_state_saved_in_evaluation_is_the_model_that_was_evaluated(register):
    layer = register(nn.Linear(64, 64, bias=False))
    layer.load_state_dict({"parametrizations.weight.original": 100 * new_weight(layer)}, strict=False)
    before = vectors_of(layer.eval())
    saved = copy.deepcopy(layer.state_dict())
    loaded = register(nn.Linear(64, 64, bias=False)).eval()
    loaded.load_state_dict(saved)
    torch.testing.assert_close(loaded.weight, layer.weight)
    assert_same(vectors_of(layer), before)


def test_a_run_saved_in_evaluation_resumes_bit_for_bit():
    run = spectral_norm(nn.Conv2d(3, 4, 3))
    original_of(run).data.copy_(new_weight(run))
    resumed = spectral_norm(nn.Conv2d(3, 4, 3))
    resumed.load_state_dict(copy.deepcopy(run.eval().state_dict()))
    for layer in (run.train(), resumed):
        for seed in (2, 3):
            layer(torch.ones(1, 3, 3, 3))
            original_of(layer).data.copy_(new_weight(layer, seed))
        layer(torch.ones(1, 3, 3, 3))
    assert_same(dict(resumed.state_dict()), dict(run.state_dict()))


def test_folding_takes_the_vectors_of_the_weight_as_it_is():
    layer = spectral_norm(nn.Linear(64, 64, bias=False))
    original_of(layer).data.copy_(1e4 * new_weight(layer))
    assert largest(fold_spectral_norm(layer)) < 2


def test_estimates_are_reported_as_they_are():
    layer = spectral_norm(nn.Linear(8, 8))
    u, v = vectors_of(layer)
    original_of(layer).data.copy_(new_weight(layer))
    torch.testing.assert_close(estimated_singular_values(layer), (u @ original_of(layer) @ v.T)[0])


# --- vectors that are none ---


@registered
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1e-30])
@pytest.mark.parametrize("names", [("u",), ("v",), ("u", "v")])
def test_vectors_that_are_none_start_anew(register, names: tuple[str, ...], value: float, training: bool):
    layer = nn.Linear(32, 16, bias=False)
    nn.init.orthogonal_(layer.weight)
    expected = register(copy.deepcopy(layer)).weight
    register(layer).train(training)
    state = torch.get_rng_state()
    for name in names:
        getattr(tracker_of(layer), name).fill_(value)
    torch.testing.assert_close(layer.weight, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)
    if training:
        for rows in vectors_of(layer):
            torch.testing.assert_close(rows @ rows.mT, torch.eye(len(rows)))


def test_vectors_that_are_none_start_anew_among_others_that_advance_together():
    torch.manual_seed(0)
    model = nn.ModuleList(spectral_norm(nn.Linear(16, 16)) for _ in range(3))
    twins = copy.deepcopy(model)
    tracker_of(model[1]).u.zero_()
    for layers in (model, twins):
        advance_power_iteration(layers)
    for index in (0, 2):
        assert_same(vectors_of(model[index]), vectors_of(twins[index]))
    assert largest(model[1]) < 1.1


def test_a_weight_of_zeros_keeps_its_vectors_and_is_followed_from_its_first_value():
    layer = spectral_norm(nn.Linear(16, 16, bias=False))
    original_of(layer).data.zero_()
    before = vectors_of(layer)
    for _ in range(3):
        assert layer(torch.ones(1, 16)).eq(0).all()
    assert_same(vectors_of(layer), before)
    original_of(layer).data.copy_(new_weight(layer))
    assert largest(layer) < 2


def test_a_weight_that_was_not_finite_is_followed_when_it_is_again():
    layer = spectral_norm(nn.Linear(16, 16, bias=False))
    original_of(layer).data[0, 0] = float("nan")
    assert layer(torch.ones(1, 16)).isnan().any()
    original_of(layer).data.copy_(new_weight(layer))
    assert largest(layer) < 2


@registered
def test_a_reset_lets_the_vectors_settle_on_the_weight_that_is_read_next(register):
    layer = register(nn.Linear(16, 16, bias=False))
    tracker_of(layer).reset_parameters()
    twin = copy.deepcopy(layer)
    original_of(layer).data.copy_(1e3 * new_weight(layer))
    for model in (layer, twin):
        model(torch.ones(1, 16))
        estimate = tracker_of(model).estimate(original_of(model))[0][0]
        exact = torch.linalg.matrix_norm(original_of(model), 2)
        torch.testing.assert_close(estimate, exact, rtol=0.1, atol=0)
