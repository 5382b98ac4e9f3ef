import io
import math
import warnings
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from gan_blocks import SelfAttention2d, twice_differentiable, zero_centered_penalty
from gan_blocks.layers import attention_products
from gan_blocks.layers.attention_products import attend_by_products, products_are_faster
from tests.drawn import draw

KERNEL = "aten::_scaled_dot_product_flash_attention_for_cpu"
Operands = list[Tensor]


def operands(batch: int, queries: int, keys: int, channels: int, value_channels: int, seed: int = 0) -> Operands:
    shapes = ((batch, queries, channels), (batch, keys, channels), (batch, keys, value_channels))
    return [draw(*shape, seed=seed + number).requires_grad_() for number, shape in enumerate(shapes)]


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(query @ key.mT, -1) @ value


def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    missing = value.shape[2] - query.shape[2]
    query, key = F.pad(query, (0, missing)), F.pad(key, (0, missing))
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]


def value_and_gradients(attend, given: Operands) -> list[Tensor]:
    gathered = attend(*given)
    weight = draw(*gathered.shape, seed=7).to(gathered.dtype)
    return [gathered, *torch.autograd.grad(gathered, given, weight)]


@given(
    batch=st.integers(0, 5),
    queries=st.integers(1, 7),
    keys=st.integers(1, 6),
    channels=st.integers(1, 20),
    value_channels=st.integers(1, 5),
    threads=st.integers(1, 2),
    rows=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_values_and_gradients_are_those_of_the_formula_in_blocks_of_any_size(
    batch: int, queries: int, keys: int, channels: int, value_channels: int, threads: int, rows: int, seed: int
):
    given = operands(batch, queries, keys, channels, value_channels, seed)
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_products, "_BLOCK_BYTES", rows * keys * 8)
        torch.set_num_threads(threads)
        try:
            found = value_and_gradients(attend_by_products, given)
        finally:
            torch.set_num_threads(before)
    for quick, slow in zip(found, value_and_gradients(plain, given), strict=True):
        torch.testing.assert_close(quick, slow, rtol=0, atol=1e-11)


def test_second_derivatives_are_those_of_the_formula():
    assert torch.autograd.gradgradcheck(attend_by_products, operands(2, 3, 4, 2, 3))


def test_gradients_of_many_losses_at_once_are_those_of_one_after_the_other():
    given = operands(2, 5, 4, 3, 2)
    gathered, weights = attend_by_products(*given), draw(3, 2, 5, 2, seed=3)
    at_once = torch.autograd.grad(gathered, given, weights, is_grads_batched=True, retain_graph=True)
    for number, weight in enumerate(weights):
        for batched, alone in zip(
            at_once, torch.autograd.grad(gathered, given, weight, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(batched[number], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("offset", "factors"), [(0, (2, 2, 2, 2)), (3, (1.25, 0.5, 1.25, 1.25))])
def test_errors_are_at_most_twice_those_of_torchs_kernel_and_smaller_where_means_are_large(
    dtype: torch.dtype, offset: int, factors: tuple[float, ...]
):
    query, *others = (operand.detach() for operand in operands(2, 512, 128, 8, 16))
    given = [query.requires_grad_(), *((offset + operand).requires_grad_() for operand in others)]
    exact = value_and_gradients(plain, given)
    rounded = [operand.detach().to(dtype).requires_grad_() for operand in given]
    found = value_and_gradients(attend_by_products, rounded), value_and_gradients(kernel, rounded)
    for quick, slow, wanted, factor in zip(*found, exact, factors, strict=True):
        error, limit = ((result.double() - wanted).norm() for result in (quick, slow))
        assert error < factor * limit


def test_slopes_that_hardly_differ_are_told_apart_in_bfloat16():
    # All values are near 100, and so are the slopes: their differences alone tell which score is to grow.
    query, key, value = (operand.detach() for operand in operands(1, 64, 32, 4, 8))
    exact = [operand.requires_grad_() for operand in (query, key, (100 + value).bfloat16().double())]
    rounded = [operand.detach().bfloat16().requires_grad_() for operand in exact]
    wanted, found = value_and_gradients(plain, exact)[1], value_and_gradients(attend_by_products, rounded)[1]
    assert (found.double() - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_number_that_is_not_finite_spoils_only_what_it_spoils_in_the_formula(which: int, number: float):
    given = operands(2, 64, 16, 4, 8)
    with torch.no_grad():
        given[which][0, 3, 2] = number
    for quick, slow in zip(
        value_and_gradients(attend_by_products, given), value_and_gradients(plain, given), strict=True
    ):
        torch.testing.assert_close(quick, slow, equal_nan=True)


def test_a_backward_pass_can_be_traced_after_a_forward_pass_that_was_not():
    given = operands(2, 5, 4, 3, 2)
    gathered, weight = attend_by_products(*given), draw(2, 5, 2, seed=3)

    def gradients(weight: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(gathered, given, weight, retain_graph=True)

    traced = make_fx(gradients)(torch.zeros_like(weight))
    torch.testing.assert_close(traced(weight), gradients(weight))


@pytest.mark.parametrize(
    ("channels", "side", "dtype", "faster"),
    [
        (64, 32, torch.bfloat16, True),
        (56, 32, torch.bfloat16, False),
        (64, 30, torch.bfloat16, False),
        (128, 32, torch.float32, True),
        (120, 32, torch.float32, False),
        (128, 32, torch.float64, False),
    ],
)
def test_large_maps_are_taken_in_bfloat16_and_in_float32_where_they_are_wide(
    channels: int, side: int, dtype: torch.dtype, faster: bool
):
    attention = SelfAttention2d(channels, dtype=dtype)
    assert (KERNEL not in operations(attention, draw(1, channels, side, side).to(dtype))) is faster


def test_attention_under_autocast_is_taken_and_stays_in_bfloat16():
    attention, x = SelfAttention2d(64), draw(2, 64, 32, 32).float().requires_grad_()
    torch.nn.init.ones_(attention.gamma)
    with torch.autocast("cpu", torch.bfloat16):
        names = operations(attention, x)
        y = attention(x)
    assert KERNEL not in names
    assert "aten::_softmax" in names
    wanted = attention(x)
    slopes = [torch.autograd.grad(result.square().sum(), x)[0] for result in (y, wanted)]
    for rounded, exact in ((y, wanted), slopes):
        assert (rounded - exact).norm() < 0.02 * exact.norm()


def operations(attention: SelfAttention2d, x: Tensor) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        attention(x)
    return {event.key for event in profiled.key_averages()}


def test_what_is_differentiated_twice_transformed_or_compiled_goes_torchs_way():
    given = [operand.detach().bfloat16() for operand in operands(1, 1024, 256, 8, 32)]
    assert products_are_faster(*given)
    with twice_differentiable():
        assert not products_are_faster(*given)
    told = []

    def look(query: Tensor) -> Tensor:
        told.append(products_are_faster(query, given[1], given[2]))
        return query

    torch.func.vmap(look)(given[0][None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jit.trace is deprecated
        torch.jit.trace(look, given[0], check_trace=False)
    torch.compile(look, backend="eager")(given[0])
    assert told == [False, False, False]
    assert not products_are_faster(given[0], given[1].float(), given[2])
    assert not products_are_faster(*(operand.to("meta") for operand in given))


def test_penalties_on_slopes_pass_through_large_maps():
    attention, x = SelfAttention2d(128), draw(1, 128, 32, 32).float().requires_grad_()
    torch.nn.init.ones_(attention.gamma)
    penalties = []
    for context in (twice_differentiable(), nullcontext()):
        with context:
            logits = attention(x).sum((1, 2, 3))
        penalty = zero_centered_penalty(x, logits)
        penalties.append([penalty, *torch.autograd.grad(penalty, list(attention.parameters()))])
    for inside, outside in zip(*penalties, strict=True):
        assert (inside - outside).norm() < 1e-4 * inside.norm()


def test_an_exported_program_is_made_of_torchs_operations():
    attention = SelfAttention2d(128)
    program = torch.export.export(attention, (draw(1, 128, 32, 32).float(),))
    torch.export.save(program, memory := io.BytesIO())
    assert "scaled_dot_product" in str(program.graph)
    assert memory.getvalue()
