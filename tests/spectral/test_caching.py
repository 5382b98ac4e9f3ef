import contextlib
import copy
import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from gan_blocks import (
    advance_power_iteration,
    cached_spectral_norm,
    clamp_sigma,
    frozen_power_iteration,
    spectral_norm,
)
from tests.spectral.cached_critic import Context, Double, batches, critic, plain


def test_all_reads_share_one_tensor_and_outside_each_has_its_own():
    layer = spectral_norm(nn.Linear(4, 3))
    with cached_spectral_norm(layer):
        assert layer.weight is layer.weight
        with torch.no_grad():
            assert torch.equal(layer.weight, layer.weight)
            assert not layer.weight.requires_grad
    assert layer.weight is not layer.weight
    assert layer.parametrizations.weight[0].cached is None


def test_an_update_before_the_context_is_noticed_and_none_advances_inside():
    cached, read = critic(doubled=False), critic(doubled=False)
    for model in (cached, read):
        for parameter in model.parameters():
            parameter.data.mul_(-1.5).add_(0.1)
    vectors = [rows.clone() for rows in cached.buffers()]
    context = cached_spectral_norm(cached)
    with context:
        after = [rows.clone() for rows in cached.buffers()]
        advance_power_iteration(cached)
        cached(next(batches()))
    read(next(batches()))
    assert not all(torch.equal(*pair) for pair in zip(vectors, after, strict=True))
    for one, other, third in zip(cached.buffers(), after, read.buffers(), strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, third, rtol=1e-12, atol=1e-12)
    advance_power_iteration(cached)
    assert not all(torch.equal(*pair) for pair in zip(cached.buffers(), after, strict=True))


def test_the_context_can_be_entered_again_after_updates_and_moves():
    model, alone = critic(), critic()
    context = cached_spectral_norm(model)
    optimizers = [torch.optim.Adam(each.parameters(), 1e-2) for each in (model, alone)]
    for turn in range(4):
        if turn == 2:
            model.to(memory_format=torch.channels_last)
            alone.to(memory_format=torch.channels_last)
        for each, around, optimizer in zip((model, alone), (context, plain(alone)), optimizers, strict=True):
            optimizer.zero_grad()
            with around:
                for images in batches():
                    each(images).square().sum().backward()
            optimizer.step()
            advance_power_iteration(each)
    for one, other in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("write", ["nothing", "data", "counted", "vectors"])
def test_entered_again_it_computes_anew_what_has_changed(write: str):
    layer = spectral_norm(nn.Linear(4, 3).double(), n_power_iterations=5)
    context = cached_spectral_norm(layer)
    norm, weight = layer.parametrizations.weight[0], layer.parametrizations.weight.original
    for _ in range(2):  # the first one may advance the vectors
        with context:
            first = layer.weight
    change = torch.tensor([1.5, 0.5, 1.0], dtype=torch.float64)[:, None]
    with torch.no_grad():
        if write == "data":
            weight.data.mul_(change)
        elif write == "counted":
            weight.mul_(change)
        elif write == "vectors":
            norm.u.copy_(norm.u.roll(1, 1))
    with context:
        second = layer.weight
        second.sum().backward()
        gradient, weight.grad = weight.grad, None
    with frozen_power_iteration(layer):
        torch.testing.assert_close(second, layer.weight, rtol=1e-12, atol=1e-12)
        layer.weight.sum().backward()
    torch.testing.assert_close(gradient, weight.grad, rtol=1e-12, atol=1e-12)
    assert (second is first) == (write == "nothing")


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    model.eval()
    yield
    model.train()


@pytest.mark.parametrize("first", [frozen_power_iteration, evaluating])
@pytest.mark.parametrize("second", [plain, frozen_power_iteration, evaluating])
def test_an_update_that_one_context_did_not_take_in_is_noticed_by_the_next(first: Context, second: Context):
    found = []
    for cache in (cached_spectral_norm, plain):
        torch.manual_seed(0)
        layer = spectral_norm(nn.Linear(4, 3).double())
        context, weight = cache(layer), layer.parametrizations.weight.original
        read = []
        for _ in range(2):
            with torch.no_grad():
                weight.add_(torch.eye(3, 4))
            for mode in (first, second):
                with mode(layer), context:
                    read.append(layer.weight)
        found.append([*read, layer.parametrizations.weight[0].u])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        lambda norm: setattr(norm, "eps", 10.0),
        lambda norm: norm.reset_parameters(),
    ],
    ids=["eps", "fresh"],
)
def test_settings_changed_between_two_contexts_act_in_the_second(change: Callable[[nn.Module], None]):
    found = []
    for cache in (cached_spectral_norm, plain):
        torch.manual_seed(0)
        model = nn.Sequential(*(spectral_norm(nn.Linear(4, 4).double(), warmup_iterations=1) for _ in range(3)))
        context = cache(model)
        with context:
            model(torch.ones(1, 4).double())
        change(model[1].parametrizations.weight[0])
        with context:
            found.append(torch.stack([layer.weight for layer in model]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_an_update_is_taken_in_once_and_the_next_context_computes_nothing_anew():
    layer = spectral_norm(nn.Linear(4, 3))
    context = cached_spectral_norm(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original.add_(torch.eye(3, 4))
    with context:
        first = layer.weight
    with context:
        assert layer.weight is first


def test_what_was_made_without_a_graph_is_made_again_where_one_is_needed():
    layer = spectral_norm(nn.Linear(4, 3))
    context = cached_spectral_norm(layer)
    layer.requires_grad_(False)
    with context:
        first = layer.weight
    with context, torch.no_grad():
        assert torch.equal(layer.weight, first)
    layer.requires_grad_(True)
    with context:
        layer.weight.sum().backward()
        second = layer.weight
    layer.requires_grad_(False)
    with context:
        assert not layer.weight.requires_grad
        assert layer.weight.data_ptr() == second.data_ptr()


def test_contexts_nest_and_an_error_inside_leaves_none_behind():
    layer = spectral_norm(nn.Linear(4, 3))
    context = cached_spectral_norm(layer)
    with context:
        first = layer.weight
        with context, cached_spectral_norm(layer):
            assert layer.weight is not first
        assert layer.weight is first
    with pytest.raises(KeyError), context:
        raise KeyError
    assert layer.parametrizations.weight[0].cached is None
    assert layer.parametrizations.weight[0].frozen == 0


def test_without_a_graph_at_the_start_a_read_that_needs_one_makes_it():
    layer = spectral_norm(nn.Linear(4, 3))
    with torch.no_grad(), cached_spectral_norm(layer):
        assert not layer.weight.requires_grad
        with torch.enable_grad():
            layer.weight.sum().backward()
    assert layer.parametrizations.weight.original.grad is not None


def test_a_copy_made_inside_and_other_weights_are_read_as_always():
    model = critic()
    with cached_spectral_norm(model):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other[0].parametrizations.weight.original.neg_()
        torch.testing.assert_close(other[0].weight, -model[0].weight)
        norm = model[0].parametrizations.weight[0]
        weight = model[0].parametrizations.weight.original.detach()
        torch.testing.assert_close(norm(3 * weight), model[0].weight)
        named = {name: 2 * value for name, value in model.named_parameters()}
        torch.func.functional_call(model, named, (next(batches()),))


def test_a_parametrization_that_comes_inside_acts():
    layer = spectral_norm(nn.Linear(4, 3))
    with cached_spectral_norm(layer):
        normalized = layer.weight.detach()
        register_parametrization(layer, "weight", Double())
        torch.testing.assert_close(layer.weight, 2 * normalized)


def test_narrower_weights_clamps_and_models_without_norms_are_left_alone():
    half = spectral_norm(nn.Linear(4, 3)).bfloat16()
    clamped = clamp_sigma(nn.Linear(4, 3), maximum=1.0)
    with cached_spectral_norm(nn.ModuleList([half, clamped, nn.Linear(2, 2)])):
        assert half.weight is not half.weight
        assert clamped.weight is not clamped.weight
        assert half.weight.dtype == torch.bfloat16
    with cached_spectral_norm(spectral_norm(nn.Linear(4, 3, device="meta"))):
        pass


def test_nothing_is_kept_alive_after_the_context():
    layer = spectral_norm(nn.Linear(4, 3))
    gc.disable()  # what is left must go without the help of the collector
    try:
        with cached_spectral_norm(layer):
            watched = weakref.ref(layer.weight)
            layer(torch.ones(1, 4)).sum().backward()
        assert watched() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("where", ["chain", "norm", "all modules"])
def test_hooks_on_the_parametrizations_act_on_cached_reads(where: str):
    layer = spectral_norm(nn.Linear(4, 3))
    chain = layer.parametrizations.weight
    expected = 2 * layer.weight

    def double(module: nn.Module, _given: object, output: Tensor) -> Tensor | None:
        return 2 * output if module is chain else None

    handle = {
        "chain": lambda: chain.register_forward_hook(double),
        "norm": lambda: chain[0].register_forward_hook(lambda _module, _given, output: 2 * output),
        "all modules": lambda: nn.modules.module.register_module_forward_hook(double),
    }[where]()
    try:
        with cached_spectral_norm(layer):
            torch.testing.assert_close(layer.weight, expected)
    finally:
        handle.remove()


@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 3), lambda: nn.ConvTranspose2d(3, 3, 2)])
def test_who_writes_into_what_a_read_gave_changes_no_other_read(make: Callable[[], nn.Module]):
    layer = spectral_norm(make())
    expected = layer.weight.detach().clone()
    context = cached_spectral_norm(layer)
    with context:
        score = layer.weight.sum()
        with torch.no_grad():
            layer.weight.zero_()
        torch.testing.assert_close(layer.weight.detach(), expected)
        score.backward()
    found = layer.parametrizations.weight.original.grad
    layer.parametrizations.weight.original.grad = None
    layer.weight.sum().backward()
    torch.testing.assert_close(found, layer.parametrizations.weight.original.grad)
    with context:
        torch.testing.assert_close(layer.weight.detach(), expected)


def test_writes_that_torch_does_not_count_and_that_keep_the_norm_are_noticed():
    layer = spectral_norm(nn.Linear(500, 400))
    weight, context = layer.parametrizations.weight.original, cached_spectral_norm(layer)
    with context:
        before = layer.weight.detach().clone()
    weight.data.neg_()
    with context:
        assert (layer.weight * before).max() <= 0
        middle = layer.weight.detach().clone()
    weight.data[3, 5] += 1e-4
    with context:
        assert layer.weight[3, 5] > middle[3, 5] + 5e-5 * before.std()


def test_a_model_that_is_moved_to_another_dtype_inside_is_read_in_it():
    layer = spectral_norm(nn.Linear(4, 3))
    with cached_spectral_norm(layer):
        layer.double()
        assert layer.weight.dtype == torch.float64


def test_what_was_read_for_inference_can_be_part_of_a_graph():
    layer = spectral_norm(nn.Linear(4, 3)).requires_grad_(False)
    context, x = cached_spectral_norm(layer), torch.ones(1, 4, requires_grad=True)
    with torch.inference_mode(), context:
        layer(x)
        with torch.inference_mode(False):
            layer(x).square().sum().backward()
    with context:
        layer(x).square().sum().backward()


def test_a_model_that_was_made_for_inference_is_read_as_always():
    with torch.inference_mode():
        layer = spectral_norm(nn.Linear(4, 3))
        for _ in range(2):
            with cached_spectral_norm(layer):
                assert layer.weight is not layer.weight


def test_contexts_end_in_any_order_and_in_several_threads():
    layer = spectral_norm(nn.Linear(4, 3))
    first, second = cached_spectral_norm(layer), cached_spectral_norm(layer)
    norm = layer.parametrizations.weight[0]
    first.__enter__()
    of_first = layer.weight
    second.__enter__()
    of_second = layer.weight
    first.__exit__(None, None, None)
    assert layer.weight is of_second is not of_first
    second.__exit__(None, None, None)
    assert (norm.cached, norm.opened, norm.frozen) == (None, (), 0)

    def read() -> None:
        for _ in range(20):
            with first, cached_spectral_norm(layer):
                layer(torch.ones(1, 4))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (norm.cached, norm.opened, norm.frozen) == (None, (), 0)


def traced(model: nn.Module, x: Tensor) -> nn.Module:
    return torch.jit.trace(model, x)


def exported(model: nn.Module, x: Tensor) -> nn.Module:
    return torch.export.export(model, (x,), strict=False).module()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("write_down", [traced, pytest.param(exported, marks=pytest.mark.slow)])
def test_programs_written_down_inside_are_those_written_down_outside(write_down):
    model, x = nn.Sequential(spectral_norm(nn.Linear(4, 3))), torch.ones(2, 4)
    with cached_spectral_norm(model):
        program = write_down(model, x)
    torch.testing.assert_close(program(x), model(x))
    norm = model[0].parametrizations.weight[0]
    assert (norm.cached, norm.opened, norm.frozen) == (None, (), 0)
