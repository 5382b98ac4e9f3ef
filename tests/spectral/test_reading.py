"""Normalized weights are read wherever models run: frozen, transformed, traced, compiled, in threads, in any dtype."""

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from gan_blocks import (
    advance_power_iteration,
    frozen_power_iteration,
    sigma_regularization,
    spectral_norm,
)
from tests.spectral.normalized import assert_same, largest, new_weight, original_of, registered, tracker_of, vectors_of


def test_a_frozen_read_takes_the_vectors_as_they_are():
    layer = spectral_norm(nn.Linear(8, 8, bias=False))
    original_of(layer).data.copy_(new_weight(layer))
    u, v = vectors_of(layer)
    with frozen_power_iteration(layer):
        raw = original_of(layer)
        torch.testing.assert_close(layer.weight, raw / (u @ raw @ v.T), rtol=1e-4, atol=0)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_an_ensemble_is_computed_at_once(compiled: bool, training: bool):
    torch.manual_seed(0)
    first = spectral_norm(nn.Linear(4, 4)).train(training)
    models = [copy.deepcopy(first) for _ in range(3)]
    for index, model in enumerate(models):
        original_of(model).data.copy_(new_weight(model, index))
        advance_power_iteration(model)
    parameters, buffers = stack_module_state(models)
    base = copy.deepcopy(first).to("meta")
    x = torch.randn(2, 4)

    def ensemble(x: Tensor) -> Tensor:
        def call(own: dict[str, Tensor], kept: dict[str, Tensor]) -> Tensor:
            return functional_call(base, (own, kept), (x,))

        return vmap(call)(parameters, buffers)

    torch._dynamo.reset()
    run = torch.compile(ensemble, backend="eager", fullgraph=True) if compiled else ensemble
    torch.testing.assert_close(run(x), torch.stack([model(x) for model in models]))


@pytest.mark.parametrize("due", [False, True])
def test_a_gradient_by_transform_is_that_of_autograd(due: bool):
    layer = spectral_norm(nn.Linear(4, 4, bias=False))
    x = torch.randn(2, 4)
    if due:
        original_of(layer).data.copy_(100 * new_weight(layer))

    def loss(raw: Tensor) -> Tensor:
        return functional_call(layer, {"parametrizations.weight.original": raw}, (x,)).square().sum()

    before = vectors_of(layer)
    gradient = torch.func.grad(loss)(original_of(layer).detach())
    assert_same(vectors_of(layer), before)
    layer(x).square().sum().backward()
    torch.testing.assert_close(gradient, original_of(layer).grad)


@registered
def test_a_model_that_is_traced_or_exported_reads_the_vectors_as_they_are(register):
    layer = register(nn.Conv2d(3, 8, 3)).eval()
    x = torch.randn(1, 3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jit.trace is deprecated
        traced = torch.jit.trace(layer, x)
    exported = torch.export.export(layer, (x,))
    assert len(list(exported.graph.nodes)) < 40
    for run in (traced, exported.module()):
        torch.testing.assert_close(run(x), layer(x))


@registered
@pytest.mark.parametrize("training", [True, False])
def test_a_compiled_graph_notices_without_a_break(register, training: bool):
    torch.manual_seed(0)
    layer = register(nn.Linear(32, 32, bias=False)).train(training)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    x = torch.randn(2, 32)
    for seed in range(3):
        original_of(layer).data.copy_(new_weight(layer, seed))
        twin = copy.deepcopy(layer)
        for _ in range(2):
            torch.testing.assert_close(compiled(x), twin(x))
        torch.testing.assert_close(vectors_of(layer), vectors_of(twin))
    tracker_of(layer).u.zero_()
    compiled(x)
    if training:
        torch.testing.assert_close(tracker_of(layer).u.square().sum(), torch.tensor(1.0 * len(tracker_of(layer).u)))


def test_a_model_is_traced_to_a_graph():
    layer = spectral_norm(nn.Linear(8, 8)).eval()
    parameters, x = dict(layer.named_parameters()), torch.randn(2, 8)
    graph = make_fx(lambda own, x: functional_call(layer, own, (x,)))(parameters, x)
    torch.testing.assert_close(graph(parameters, x), layer(x))


def test_a_layer_on_the_meta_device_takes_a_state():
    with torch.device("meta"):
        layer = spectral_norm(nn.Linear(8, 8))
    source = spectral_norm(nn.Linear(8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's: nothing is copied
        layer.load_state_dict(source.state_dict())
    layer.load_state_dict(source.state_dict(), assign=True)
    assert_same(layer.weight, source.weight)


def test_a_model_that_was_loaded_for_inference_can_be_trained():
    layer = spectral_norm(nn.Linear(8, 8, bias=False))
    with torch.inference_mode():
        layer.load_state_dict(copy.deepcopy(layer.state_dict()))
    original_of(layer).data.add_(1)
    layer(torch.ones(1, 8))
    assert 0.9 < largest(layer) < 2


def test_threads_that_read_together_each_notice():
    layer = spectral_norm(nn.Linear(64, 64, bias=False)).eval()
    original_of(layer).data.copy_(100 * new_weight(layer))
    expected = layer.weight.detach()
    with ThreadPoolExecutor(4) as pool:
        for read in pool.map(lambda _: layer.weight.detach(), range(400)):
            torch.testing.assert_close(read, expected)


def test_one_zero_vector_among_many_is_seen():
    layer = spectral_norm(nn.Linear(64, 64, bias=False), num_singular_values=40)
    original_of(layer).data.copy_(new_weight(layer))
    layer(torch.ones(1, 64))
    for rows in (tracker_of(layer).u, tracker_of(layer).v):
        rows[0] = 0
    assert largest(layer) < 2


def test_a_penalty_on_singular_values_counts_as_a_read():
    layer = spectral_norm(nn.Linear(8, 8))
    original_of(layer).data.copy_(new_weight(layer))
    twin = copy.deepcopy(layer)
    sigma_regularization(layer, target=1.0)
    twin(torch.ones(1, 8))
    assert_same(vectors_of(layer), vectors_of(twin))
    tracker = tracker_of(layer)
    tracker(new_weight(layer, 2))  # no flag is left behind: this is no read
    assert_same(vectors_of(layer), vectors_of(twin))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_an_advance_that_is_due_stays_due_in_another_precision(dtype: torch.dtype):
    layer = spectral_norm(nn.Linear(64, 64, bias=False))
    original_of(layer).data.copy_(100 * new_weight(layer))
    layer.to(dtype).eval()
    assert torch.linalg.matrix_norm(layer.weight.float(), 2) < 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_half_precision_notices_what_changes_and_nothing_else(dtype: torch.dtype):
    layer = spectral_norm(nn.Linear(32, 32, bias=False)).to(dtype)
    x = torch.ones(1, 32, dtype=dtype)
    layer(x)
    before = vectors_of(layer)
    layer(x)
    assert_same(vectors_of(layer), before)
    original_of(layer).data.copy_(new_weight(layer))
    layer(x)
    assert not torch.equal(tracker_of(layer).u, before[0])
    assert torch.linalg.matrix_norm(layer.weight.float(), 2) < 2
