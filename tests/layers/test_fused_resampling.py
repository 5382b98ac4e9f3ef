import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from gan_blocks import equalized_lr, normalized_layer, spectral_norm, upsample_bilinear
from gan_blocks.layers import fused_resampling
from gan_blocks.layers.fused_resampling import conv2d_downsample, upsample_conv2d
from gan_blocks.layers.resampling import downsample_average, upsample_nearest

Way = Callable[[nn.Module, Tensor], Tensor]


def plain_up(conv: nn.Module, x: Tensor) -> Tensor:
    return conv(upsample_nearest(x))


def plain_down(conv: nn.Module, x: Tensor) -> Tensor:
    return downsample_average(conv(x))


WAYS = [(upsample_conv2d, plain_up), (conv2d_downsample, plain_down)]
both_ways = pytest.mark.parametrize(("fused", "plain"), WAYS, ids=["up", "down"])
KINDS: dict[str, Callable[[nn.Conv2d], nn.Module]] = {
    "plain": lambda conv: conv,
    "spectral": spectral_norm,
    "equalized": equalized_lr,
}


@pytest.fixture
def fused_kernels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the kernels of stride 2 that ran."""
    seen: list[tuple[int, ...]] = []

    def spy(convolution: Callable[..., Tensor], x: Tensor, weight: Tensor, *args: Any, **options: Any) -> Tensor:
        if options.get("stride") == 2:
            seen.append(tuple(weight.shape[2:]))
        return convolution(x, weight, *args, **options)

    for name in ("conv2d", "conv_transpose2d"):
        monkeypatch.setattr(fused_resampling.F, name, partial(spy, getattr(F, name)))
    return seen


@given(
    data=st.data(),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    half=st.tuples(st.integers(8, 11), st.integers(8, 11)),
    bias=st.booleans(),
    kind=st.sampled_from(sorted(KINDS)),
    way=st.sampled_from(range(2)),
    memory_format=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_values_and_gradients_equal_the_plain_way(
    data: st.DataObject,
    channels: tuple[int, int],
    half: tuple[int, int],
    bias: bool,
    kind: str,
    way: int,
    memory_format: torch.memory_format,
):
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    size = half if way == 0 else (2 * half[0], 2 * half[1])
    conv = KINDS[kind](nn.Conv2d(*channels, 3, padding=1, bias=bias).double()).to(memory_format=memory_format)
    other = copy.deepcopy(conv)
    x = torch.randn(2, channels[0], *size, dtype=torch.float64, generator=rng, requires_grad=True)
    y, expected = WAYS[way][0](conv, x), WAYS[way][1](other, x)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    upstream = torch.randn(y.shape, dtype=torch.float64, generator=rng)
    found = torch.autograd.grad(y, [x, *conv.parameters()], upstream)
    wanted = torch.autograd.grad(expected, [x, *other.parameters()], upstream)
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_products_give_the_kernels_that_sums_give_in_the_memory_format_of_the_weight(
    transposed: bool, dtype: torch.dtype, memory_format: torch.memory_format
):
    weight = torch.randn(6, 5, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    weight = weight.to(memory_format=memory_format)
    sums = fused_resampling._SUMS_OF_FLIPPED if transposed else fused_resampling._SUMS
    with torch.autocast("cpu", torch.bfloat16):  # which is not to round the sums
        kernel = fused_resampling._sum_by_products(weight, sums, transposed=transposed)
    wanted = fused_resampling._sum_neighbors(weight.flip(2, 3) if transposed else weight)
    wanted = wanted.transpose(0, 1) if transposed else wanted
    torch.testing.assert_close(kernel, wanted, check_stride=False)
    if memory_format == torch.channels_last:
        assert kernel.is_contiguous(memory_format=torch.channels_last)
    else:
        assert (kernel.transpose(0, 1) if transposed else kernel).is_contiguous()


class _PrecisionOfProducts(TorchDispatchMode):
    """Records the precision that matrix products are asked for while they run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            self.seen.append(torch.backends.mkldnn.matmul.fp32_precision)
        return func(*args, **(kwargs or {}))


@both_ways
@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="torch before 2.9 has one setting for all")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kernels_are_not_rounded_where_products_are_asked_for_in_bfloat16(
    fused: Way, plain: Way, memory_format: torch.memory_format
):
    conv = nn.Conv2d(4, 3, 3, padding=1).to(memory_format=memory_format)
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with _PrecisionOfProducts() as recorder:
            fused(conv, torch.ones(1, 4, 16, 16))
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"
    assert recorder.seen == ["ieee"]


@both_ways
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_many_networks_run_at_once(fused: Way, plain: Way, memory_format: torch.memory_format):
    convs = [nn.Conv2d(4, 3, 3, padding=1).to(memory_format=memory_format) for _ in range(2)]
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    layer = nn.ModuleDict({"conv": copy.deepcopy(convs[0])})
    layer.forward = lambda x: fused(layer["conv"], x)  # type: ignore[method-assign]
    weights = {f"conv.{name}": weight for name, weight in torch.func.stack_module_state(convs)[0].items()}
    both = torch.func.vmap(lambda weights: torch.func.functional_call(layer, weights, x))(weights)
    torch.testing.assert_close(both, torch.stack([plain(conv, x) for conv in convs]))


@both_ways
def test_it_is_one_convolution_of_stride_two_from_the_size_where_that_is_faster(
    fused: Way, plain: Way, fused_kernels: list[tuple[int, ...]]
):
    conv = nn.Conv2d(2, 3, 3, padding=1)
    smallest = 8 if plain is plain_up else 16
    with torch.no_grad():
        fused(conv, torch.zeros(1, 2, smallest, smallest))
        assert fused_kernels == [(4, 4)]
        fused(conv, torch.zeros(1, 2, smallest, smallest - 2))
    assert fused_kernels == [(4, 4)]


class Noisy(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Doubled(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, 2 * weight, bias)


class Counting(nn.Conv2d):
    def __call__(self, x: Tensor) -> Tensor:
        return 3 * super().__call__(x)


def patched() -> nn.Module:
    """As adapters and offloading do it."""
    conv = nn.Conv2d(2, 2, 3, padding=1)
    conv.forward = lambda x: 2 * nn.Conv2d.forward(conv, x)
    return conv


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "a subclass with a forward of its own": lambda: Noisy(2, 2, 3, padding=1),
    "a layer whose forward was replaced": patched,
    "a subclass that changes the weight": lambda: Doubled(2, 2, 3, padding=1),
    "a subclass that is called otherwise": lambda: Counting(2, 2, 3, padding=1),
    "several layers": lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Tanh()),
    "another filter": lambda: nn.Conv2d(2, 2, 5, padding=2),
    "dilated": lambda: nn.Conv2d(2, 2, 3, padding=2, dilation=2),
    "groups": lambda: nn.Conv2d(2, 2, 3, padding=1, groups=2),
    "another padding": lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
}


@both_ways
@pytest.mark.parametrize("make", OTHERS.values(), ids=list(OTHERS))
def test_other_layers_are_called(
    fused: Way, plain: Way, make: Callable[[], nn.Module], fused_kernels: list[tuple[int, ...]]
):
    conv, x = make(), torch.randn(1, 2, 16, 16)
    assert torch.equal(fused(conv, x), plain(conv, x))
    assert not fused_kernels


@both_ways
def test_a_layer_that_somebody_looks_at_is_called(fused: Way, plain: Way, fused_kernels: list[tuple[int, ...]]):
    x = torch.randn(1, 2, 16, 16, requires_grad=True)
    for register in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        conv, seen = nn.Conv2d(2, 2, 3, padding=1), list[int]()
        getattr(conv, register)(lambda *_args, seen=seen: seen.append(1))
        y = fused(conv, x)
        y.sum().backward()
        assert seen
        assert torch.equal(y, plain(conv, x))
    assert not fused_kernels


@both_ways
def test_what_is_no_batch_of_maps_is_refused_as_by_the_plain_way(fused: Way, plain: Way):
    with pytest.raises(ValueError, match=r"must be of shape \(batch, channels, height, width\)"):
        fused(nn.Conv2d(4, 2, 3, padding=1), torch.zeros(4, 16, 16))


def test_another_way_to_resample_is_kept():
    conv, x = nn.Conv2d(2, 2, 3, padding=1), torch.randn(1, 2, 16, 16)
    assert torch.equal(upsample_conv2d(conv, x, upsample=upsample_bilinear), conv(upsample_bilinear(x)))
    assert torch.equal(conv2d_downsample(conv, x, downsample=lambda h: h[..., ::2, ::2]), conv(x)[..., ::2, ::2])


@both_ways
def test_gradients_of_gradients(fused: Way, plain: Way):
    conv = nn.Conv2d(1, 2, 3, padding=1).double()
    x = torch.randn(1, 1, *((8, 9) if plain is plain_up else (16, 18)), dtype=torch.float64, requires_grad=True)

    def of(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(Called(fused, conv), {"conv.weight": weight}, x)

    weight = conv.weight.detach().clone().requires_grad_()
    assert gradcheck(of, (x, weight), fast_mode=True)
    assert gradgradcheck(of, (x, weight), fast_mode=True)


class Called(nn.Module):
    def __init__(self, way: Way, conv: nn.Module) -> None:
        super().__init__()
        self.way, self.conv = way, conv

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self.conv, x)


@both_ways
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_summed_before_they_are_rounded(fused: Way, plain: Way, dtype: torch.dtype):
    conv, x = nn.Conv2d(8, 8, 3, padding=1).to(dtype), torch.randn(2, 8, 16, 16).to(dtype)
    exact = plain(copy.deepcopy(conv).double(), x.double())
    errors = [(way(conv, x).double() - exact).abs().max() for way in (fused, plain)]
    assert fused(conv, x).dtype == dtype
    assert errors[0] < 4 * errors[1]  # of a sum of four weights, rounded once


@both_ways
def test_it_compiles_without_graph_breaks(fused: Way, plain: Way):
    module = Called(fused, normalized_layer(nn.Conv2d)(2, 3, 3, padding=1))
    x = torch.randn(1, 2, 16, 16)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), plain(module.conv, x))
