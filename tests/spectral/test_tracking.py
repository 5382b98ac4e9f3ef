"""When the singular vectors advance: once per update of the weight, never per read."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from torch.utils.checkpoint import checkpoint

from gan_blocks import (
    SigmaClamp,
    SpectralNorm,
    advance_power_iteration,
    fold_spectral_norm,
    frozen_power_iteration,
    spectral_norm,
)
from gan_blocks.spectral.registering import own_class
from tests.spectral.normalized import original_of, tracker_of, vectors_of


class Double(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.factor.detach()


def normalized_linear(rng: torch.Generator, **options: int) -> nn.Linear:
    layer = nn.Linear(5, 4)
    with torch.no_grad():
        layer.weight.normal_(generator=rng)
    return spectral_norm(layer, warmup_iterations=1, generator=rng, **options)


def update(layer: nn.Module, factor: float = 1.01) -> None:
    with torch.no_grad():
        original_of(layer).mul_(factor)


def advanced(layer: nn.Module, steps: int = 1, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The vectors that the layer has after ``steps`` more power iterations, without touching it."""
    twin = copy.deepcopy(tracker_of(layer))
    twin.advance(original_of(layer) if weight is None else weight, n_power_iterations=steps)
    return twin.u, twin.v


def assert_vectors(layer: nn.Module, expected: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(vectors_of(layer), expected, atol=0, rtol=0)


def read(layer: nn.Module) -> None:
    layer(torch.ones(1, 5)).sum().backward()


def test_registering_leaves_the_vectors_of_the_warm_up(rng: torch.Generator):
    layer = normalized_linear(rng)
    before = vectors_of(layer)
    read(layer)
    assert_vectors(layer, before)


@pytest.mark.parametrize("n_power_iterations", [1, 3])
def test_an_update_earns_one_advance_whatever_the_number_of_reads(rng: torch.Generator, n_power_iterations: int):
    layer = normalized_linear(rng, n_power_iterations=n_power_iterations)
    for _ in range(3):
        update(layer)
        expected = advanced(layer, n_power_iterations)
        for _ in range(4):
            read(layer)
        with torch.no_grad():
            read_without_grad = layer.weight
        assert_vectors(layer, expected)
        assert torch.equal(read_without_grad, layer.weight)


def test_evaluation_never_advances_and_the_update_is_noticed_in_training_again(rng: torch.Generator):
    layer = normalized_linear(rng)
    before = vectors_of(layer)
    layer.eval()
    update(layer)
    read(layer)
    assert_vectors(layer, before)
    expected = advanced(layer)
    layer.train()
    read(layer)
    assert_vectors(layer, expected)


@pytest.mark.parametrize("fused", [False, True])
def test_accumulated_gradients_equal_those_of_the_whole_batch(rng: torch.Generator, fused: bool):
    whole = normalized_linear(rng).double()
    split = copy.deepcopy(whole)
    batch = torch.randn(8, 5, dtype=torch.float64, generator=rng)
    for layer, size in ((whole, 8), (split, 2)):
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, fused=fused)
        for _ in range(3):
            optimizer.zero_grad()
            for part in batch.split(size):
                layer(part).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(dict(split.state_dict()), dict(whole.state_dict()), atol=1e-12, rtol=0)


def test_two_calls_before_one_backward_see_one_weight_and_survive_an_advance(rng: torch.Generator):
    layer = normalized_linear(rng)
    real, fake = torch.randn(2, 3, 5, generator=rng)
    update(layer)
    loss = layer(real).sum() - layer(fake).sum()
    expected = torch.autograd.grad(loss, original_of(layer), retain_graph=True)[0]
    advance_power_iteration(layer)
    assert torch.equal(torch.autograd.grad(loss, original_of(layer))[0], expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_recomputed_forward_pass_sees_the_weight_of_the_first(rng: torch.Generator, use_reentrant: bool):
    layer = normalized_linear(rng)
    twin = copy.deepcopy(layer)
    x = torch.randn(3, 5, generator=rng, requires_grad=True)
    for _ in range(2):
        for candidate in (layer, twin):
            update(candidate)
            candidate.zero_grad()
        checkpoint(layer, x, use_reentrant=use_reentrant).square().sum().backward()
        twin(x).square().sum().backward()
        assert torch.equal(original_of(layer).grad, original_of(twin).grad)
    assert_vectors(layer, vectors_of(twin))


def assign(layer: nn.Module, weight: Tensor) -> None:
    layer.weight = weight


def load_without_vectors(layer: nn.Module, weight: Tensor) -> None:
    layer.load_state_dict({"parametrizations.weight.original": weight}, strict=False)


put_in = pytest.mark.parametrize("put_in", [assign, load_without_vectors])


@put_in
@pytest.mark.parametrize("size", [16, 300])  # advanced with others in one product, and by itself
def test_vectors_settle_on_a_weight_that_is_put_in_and_are_then_one_step_an_update_behind(
    put_in, size: int, rng: torch.Generator
):
    layers = nn.ModuleList(spectral_norm(nn.Linear(size, size, bias=False)) for _ in range(2))
    weight = torch.randn(size, size, generator=rng)
    for layer in layers:
        put_in(layer, weight)
    for steps in (15, 1, 1):
        expected = [advanced(layer, steps) for layer in layers]
        advance_power_iteration(layers)
        for layer, vectors in zip(layers, expected, strict=True):
            torch.testing.assert_close(vectors_of(layer), vectors, rtol=0, atol=1e-5)
            original_of(layer).data.add_(0.1 * torch.randn(size, size, generator=rng))


@put_in
@pytest.mark.parametrize("training", [True, False])
def test_a_weight_that_is_put_in_is_normalized_from_its_first_read_on(put_in, training: bool, rng: torch.Generator):
    """With a gap below the first singular value, as trained weights have; one step alone gives 2.9."""
    layer = spectral_norm(nn.Linear(64, 64, bias=False)).train(training)
    left, right = (torch.linalg.qr(torch.randn(64, 64, generator=rng)).Q for _ in range(2))
    values = torch.linspace(1.5, 0.2, 64)
    values[0] = 5
    put_in(layer, left @ values.diag() @ right)
    for folded in (layer, fold_spectral_norm(copy.deepcopy(layer))):
        assert torch.linalg.matrix_norm(folded.weight, 2).item() == pytest.approx(1, abs=1e-3)


@put_in
def test_a_weight_that_is_put_in_is_settled_once_vectors_are_loaded(put_in, rng: torch.Generator):
    layer, source = normalized_linear(rng), normalized_linear(rng)
    put_in(layer, torch.randn(4, 5, generator=rng))
    layer.load_state_dict(copy.deepcopy(source.state_dict()))
    update(layer)
    expected = advanced(layer)
    read(layer)
    assert_vectors(layer, expected)


def train(layer: nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        layer(torch.full((1, 5), 1.0 + step)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("fused", [False, True])
def test_a_resumed_run_continues_bit_for_bit(rng: torch.Generator, fused: bool):
    run, resumed = normalized_linear(rng), normalized_linear(rng)
    optimizers = [torch.optim.Adam(layer.parameters(), lr=0.1, fused=fused) for layer in (run, resumed)]
    train(run, optimizers[0], 3)
    resumed.load_state_dict(copy.deepcopy(run.state_dict()))
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for layer, optimizer in zip((run, resumed), optimizers, strict=True):
        train(layer, optimizer, 3)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(run.state_dict()), atol=0, rtol=0)


def test_saving_takes_an_advance_that_is_due_in_training_and_not_in_evaluation(rng: torch.Generator):
    layer = normalized_linear(rng)
    before = vectors_of(layer)
    update(layer)
    expected = advanced(layer)
    layer.eval().state_dict()
    assert_vectors(layer, before)
    layer.train().state_dict()
    assert_vectors(layer, expected)


@pytest.mark.parametrize("assign", [False, True])
def test_loaded_vectors_are_taken_as_belonging_to_the_loaded_weight(rng: torch.Generator, assign: bool):
    source, layer = normalized_linear(rng), normalized_linear(rng)
    layer.load_state_dict(copy.deepcopy(source.state_dict()), assign=assign)
    layer.eval()
    layer(torch.ones(1, 5))
    layer.train()
    assert torch.equal(layer.weight, source.weight)
    assert_vectors(layer, vectors_of(source))
    update(layer)
    expected = advanced(layer)
    read(layer)
    assert_vectors(layer, expected)


def test_a_weight_loaded_without_vectors_is_an_update(rng: torch.Generator):
    layer = normalized_linear(rng)
    weight = torch.randn(4, 5, generator=rng)
    expected = advanced(layer, weight=weight)
    layer.load_state_dict({"parametrizations.weight.original": weight}, strict=False)
    read(layer)
    assert_vectors(layer, expected)


def test_copies_keep_the_vectors_and_advance_on_their_own(rng: torch.Generator):
    layer = normalized_linear(rng)
    update(layer)
    read(layer)
    before = vectors_of(layer)
    twin, updated_unread = copy.deepcopy(layer), copy.deepcopy(layer)
    read(twin)
    assert_vectors(twin, before)
    for copied in (twin, updated_unread):
        update(copied)
        expected = advanced(copied)
        read(copied)
        assert_vectors(copied, expected)
    assert_vectors(layer, before)


@pytest.mark.parametrize("training", [False, True])
def test_an_advance_that_is_due_is_due_for_a_copy_too(rng: torch.Generator, training: bool):
    layer = normalized_linear(rng).train(training)
    update(layer)
    twin = copy.deepcopy(copy.deepcopy(layer))
    read(layer)
    read(twin)
    assert_vectors(twin, vectors_of(layer))
    assert torch.equal(twin.weight, layer.weight)


def test_a_chain_copied_alone_works_like_its_original(rng: torch.Generator):
    layer = normalized_linear(rng)
    chain = copy.deepcopy(layer.parametrizations.weight)
    with torch.no_grad():
        chain.original.mul_(2)
    expected = advanced(layer, weight=chain.original)
    chain()
    torch.testing.assert_close((chain[0].u, chain[0].v), expected, atol=0, rtol=0)


def test_a_copy_made_inside_a_frozen_context_is_not_frozen(rng: torch.Generator):
    layer = normalized_linear(rng)
    with frozen_power_iteration(layer):
        twin = copy.deepcopy(layer)
    update(twin)
    expected = advanced(twin)
    read(twin)
    assert_vectors(twin, expected)


def test_a_tracker_survives_pickling(rng: torch.Generator):
    tracker = tracker_of(normalized_linear(rng))
    twin = pickle.loads(pickle.dumps(tracker))
    for buffer, copied in zip(tracker.buffers(), twin.buffers(), strict=True):
        assert torch.equal(copied, buffer)


def test_behind_another_parametrization_its_output_is_followed_and_its_updates_are_noticed(rng: torch.Generator):
    layer = nn.Linear(5, 4)
    register_parametrization(layer, "weight", Double())
    spectral_norm(layer, n_power_iterations=50, generator=rng)
    for change in (original_of(layer), layer.parametrizations.weight[0].factor):
        before = vectors_of(layer)
        with torch.no_grad():
            change.add_(torch.randn(change.shape, generator=rng))
        layer.eval()
        layer(torch.ones(1, 5))
        assert_vectors(layer, before)
        layer.train()
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-3)
        read_once = vectors_of(layer)
        read(layer)
        assert_vectors(layer, read_once)


def test_copies_are_made_without_their_originals_losing_the_tensor(rng: torch.Generator):
    layer = normalized_linear(rng)
    expected = layer.weight.detach().clone()
    folded = fold_spectral_norm(copy.deepcopy(layer))
    assert torch.equal(layer.weight, expected)
    assert torch.equal(folded.weight, expected)
    assert type(folded) is nn.Linear
    assert type(layer).__name__ == "ParametrizedLinear"


def test_an_own_class_changes_nothing_but_the_class_object(rng: torch.Generator):
    layer = normalized_linear(rng)
    plain, shared = nn.Linear(2, 2), type(layer)
    own_class(layer)
    own_class(plain)
    assert type(layer) is not shared
    assert type(layer).__name__ == shared.__name__
    assert type(layer).__bases__ == shared.__bases__
    assert type(plain) is nn.Linear
    assert torch.equal(copy.deepcopy(layer).weight, layer.weight)


@pytest.mark.parametrize("shape", [(4, 5), (3, 5), (5,), (4, 3, 2)])
def test_a_weight_of_another_shape_than_the_first_is_refused(shape: tuple[int, ...]):
    trackers = (SpectralNorm(torch.ones(4, 3)), SigmaClamp(torch.ones(4, 3), maximum=1.0))
    for tracker in trackers:
        rule = "`weight` must be with 4 rows of 3 elements along dim 0, as the one that it was made for"
        with pytest.raises(ValueError, match=f"^{type(tracker).__name__}: {rule}, but got weight of shape"):
            tracker(torch.ones(shape))
    trackers[0](torch.ones(4, 3, 1))  # the same matrix
