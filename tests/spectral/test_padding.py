import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import SpectralNorm, advance_power_iteration, frozen_power_iteration, spectral_norm
from gan_blocks.spectral.padding import PaddedStack, padded_stack, share_stacks, unpadded

SHAPES = st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple), min_size=1, max_size=6)


@given(SHAPES)
def test_what_is_stacked_comes_back(shapes: list[tuple[int, ...]]):
    tensors = [torch.rand(shape, dtype=torch.float64) + 1 for shape in shapes]
    stack = padded_stack(tensors)
    assert all(map(torch.equal, unpadded(stack, tensors), tensors))
    assert torch.count_nonzero(stack) == sum(tensor.numel() for tensor in tensors)


@given(SHAPES)
def test_it_is_differentiable(shapes: list[tuple[int, ...]]):
    tensors = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    factors = [torch.rand(shape, dtype=torch.float64) for shape in shapes]
    stack = padded_stack(tensors)
    assert torch.equal(stack, padded_stack([tensor.detach() for tensor in tensors]))
    back = unpadded(stack.square(), tensors)
    sum((factor * part).sum() for factor, part in zip(factors, back, strict=True)).backward()
    for tensor, factor in zip(tensors, factors, strict=True):
        torch.testing.assert_close(tensor.grad, 2 * factor * tensor.detach())


@given(SHAPES)
def test_memory_that_is_used_again_holds_what_was_written_last(shapes: list[tuple[int, ...]]):
    memory = PaddedStack(shapes, torch.ones((), dtype=torch.float64))
    for _ in range(2):
        tensors = [torch.rand(shape, dtype=torch.float64) + 1 for shape in shapes]
        assert torch.equal(memory.filled(tensors), padded_stack(tensors))
        assert all(map(torch.equal, memory.parts, tensors))


def test_a_weight_of_channels_last_is_stacked_in_torch_s_order():
    weight = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    pair = [weight, torch.rand(5, 20)]
    memory = PaddedStack([each.shape for each in pair], weight)
    for stack in (padded_stack(pair), memory.filled(pair)):
        assert torch.equal(stack[0, :4, :12], weight.flatten(1))


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), max_size=12))
def test_each_matrix_is_in_one_stack(sizes: list[tuple[int, int]]):
    stacks = share_stacks(tuple(sizes))
    assert sorted(position for stack in stacks for position in stack) == list(range(len(sizes)))


def test_equal_sizes_share_a_stack_and_so_do_those_that_need_little_padding():
    assert share_stacks(((32, 64), (200, 300), (32, 64), (200, 300))) == ((0, 2), (1, 3))
    assert share_stacks(((32, 64), (16, 100), (200, 300))) == ((2,), (0, 1))


def some_layers(*, dtype: torch.dtype) -> nn.Sequential:
    """Several sizes and orders in memory, always of the same weights."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1), nn.Linear(5, 7), nn.Embedding(6, 3)]
    model = nn.Sequential(*layers).to(dtype).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(1)
    for layer in layers:
        spectral_norm(layer, generator=generator)
    return model


def norms(model: nn.Module) -> list[SpectralNorm]:
    return [module for module in model.modules() if isinstance(module, SpectralNorm)]


def buffers(model: nn.Module) -> list[Tensor]:
    return [buffer for norm in norms(model) for buffer in norm.buffers()]


def update(model: nn.Module) -> None:
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter), alpha=0.1)


@pytest.mark.parametrize("steps", [1, 3])
def test_vectors_that_advance_together_are_those_that_advance_alone(steps: int):
    together, alone = (some_layers(dtype=torch.float64) for _ in range(2))
    for model in (together, alone):
        update(model)
    advance_power_iteration(together, n_power_iterations=steps)
    for layer in alone:
        advance_power_iteration(layer, n_power_iterations=steps)
    for ours, expected in zip(buffers(together), buffers(alone), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert [norm.advances for norm in norms(together)] == [norm.advances for norm in norms(alone)]


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_a_weight_of_zeros_or_without_a_number_keeps_its_vectors_and_others_advance(value: float):
    together, alone = (some_layers(dtype=torch.float64) for _ in range(2))
    for model in (together, alone):
        update(model)
        with torch.no_grad():
            model[1].parametrizations.weight.original.fill_(value)
    before = norms(together)[1].u.clone()
    advance_power_iteration(together)
    for layer in alone:
        advance_power_iteration(layer)
    assert torch.equal(norms(together)[1].u, before)
    for ours, expected in zip(buffers(together), buffers(alone), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_after_an_advance_no_read_advances_again():
    model = some_layers(dtype=torch.float32)
    update(model)
    advance_power_iteration(model)
    before = [buffer.clone() for buffer in buffers(model)]
    for layer in model:
        layer.weight  # noqa: B018
    assert all(map(torch.equal, buffers(model), before))


def test_what_is_held_stays():
    model = some_layers(dtype=torch.float32)
    update(model)
    before = norms(model)[0].u.clone()
    with frozen_power_iteration(model[0]):
        advance_power_iteration(model)
    assert torch.equal(norms(model)[0].u, before)
    assert norms(model)[1].advances == norms(model)[0].advances + 1


def test_weights_of_several_dtypes_advance_each_in_its_own():
    together, alone = (
        nn.ModuleList(
            [*some_layers(dtype=torch.float32), *some_layers(dtype=torch.float64), *some_layers(dtype=torch.bfloat16)]
        )
        for _ in range(2)
    )
    for model in (together, alone):
        update(model)
    advance_power_iteration(together)
    for layer in alone:
        advance_power_iteration(layer)
    for ours, expected in zip(buffers(together), buffers(alone), strict=True):
        torch.testing.assert_close(ours, expected)
