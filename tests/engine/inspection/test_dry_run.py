from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.inspection import dry_run
from gan_blocks.engine.inspection.dry_run import DryRun, WithoutInitialization, build_on_meta
from recipes import sngan

Network = Callable[..., Tensor]

WITH_SHORT_CUT: dict[str, tuple[Network, tuple[tuple[int, ...], ...]]] = {
    "convolution": (F.conv2d, ((2, 4, 9, 8), (6, 4, 3, 2), (6,))),
    "convolution of a row of pixels": (F.conv1d, ((2, 4, 9), (6, 4, 3))),
    "linear": (F.linear, ((2, 4), (3, 4), (3,))),
    "linear without bias": (F.linear, ((2, 4), (3, 4))),
    "linear over three axes": (F.linear, ((2, 5, 4), (3, 4), (3,))),
    "linear over the pixels of all images": (
        lambda x, weight: F.linear(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]), weight),
        ((2, 4, 7, 5), (3, 4)),
    ),
    "matrix product": (torch.matmul, ((2, 3), (3, 5))),
    "products of a batch": (torch.matmul, ((2, 3, 4, 5), (5, 6))),
    "batched matrix product": (torch.bmm, ((2, 3, 4), (2, 4, 5))),
    "attention": (F.scaled_dot_product_attention, ((2, 1, 9, 3), (2, 1, 5, 3), (2, 1, 5, 4))),
    "sum over pixels": (lambda x: x.sum(dim=(2, 3)), ((2, 3, 4, 4),)),
    "pixels averaged": (lambda x: F.avg_pool2d(x, 2), ((2, 3, 5, 4),)),
    "largest pixels": (lambda x: F.max_pool2d(x, 3, stride=2, padding=1), ((2, 3, 5, 4),)),
    "pixels repeated": (lambda x: F.interpolate(x, scale_factor=2.0), ((2, 3, 5, 4),)),
    "normalization": (lambda x, mean, var: F.batch_norm(x, mean, var), ((2, 3, 4, 4), (3,), (3,))),
    "modulation": (lambda x, gain, bias: torch.tanh(torch.addcmul(bias, x, 1 + gain)), ((2, 3, 4), (3, 1), (2, 3, 4))),
    "sum of broadcast maps": (lambda x, y: F.leaky_relu(F.relu(x) - y), ((2, 3, 1), (3, 4))),
    "channels joined": (lambda x, y: torch.cat([x, y], dim=-1), ((2, 3), (2, 5))),
    "channels dropped": (lambda x: F.relu(x[:, :2]), ((2, 3, 4),)),
    "view of channels first": (lambda x: F.relu(x.permute(0, 2, 1)).permute(0, 2, 1).view(2, -1), ((2, 3, 4),)),
}
WITHOUT: dict[str, tuple[Network, tuple[tuple[int, ...], ...]]] = {
    "sum over images": (lambda x: x.sum(dim=0), ((2, 3),)),
    "images joined": (lambda x, y: torch.cat([x, y]), ((2, 3), (4, 3))),
    "images joined, counted from the last axis": (lambda x, y: torch.cat([x, y], dim=-2), ((2, 3), (4, 3))),
    "matrix product that is added to a matrix": (torch.addmm, ((2, 3), (2, 4), (4, 3))),
    "sum of products": (lambda x, y: torch.einsum("bchw,ocd->bohwd", x, y), ((2, 3, 4, 5), (6, 3, 2))),
    "normalization by the batch": (lambda x: F.batch_norm(x, None, None, training=True), ((2, 3, 4, 4),)),
    "pixels averaged in one image": (lambda x: F.avg_pool2d(x, 2), ((3, 4, 4),)),
    "mixed dtypes": (lambda x: x.double() + x, ((2, 3),)),
    "softmax": (lambda x: F.softmax(x, dim=1), ((2, 3),)),
    "one row for all": (lambda x, y: torch.stack([x, y.expand(2, 3)]).mean(dim=(0, 2)), ((2, 3), (1, 3))),
}


def on_meta(shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    return [torch.empty(shape, device="meta") for shape in shapes]


def count(network: Network, inputs: list[Tensor]) -> tuple[Tensor, int]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = network(*inputs)
    return out, counter.get_total_flops()


@pytest.mark.parametrize("name", [*WITH_SHORT_CUT, *WITHOUT])
def test_shape_dtype_and_count_are_those_of_real_tensors(name: str):
    network, shapes = {**WITH_SHORT_CUT, **WITHOUT}[name]
    with torch.no_grad(), DryRun() as run:
        out = network(*on_meta(shapes))
    real, flops = count(network, [torch.ones(shape) for shape in shapes])
    assert out.is_meta
    assert (out.shape, out.dtype) == (real.shape, real.dtype)
    assert run.flops == flops


@pytest.mark.parametrize("name", WITH_SHORT_CUT)
def test_a_short_cut_calls_no_kernel_of_the_meta_device(name: str, monkeypatch: pytest.MonkeyPatch):
    network, shapes = WITH_SHORT_CUT[name]
    called = []

    def spy(func: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        out = by_rule(func, args, kwargs)
        if out is NotImplemented:
            called.append(func)
        return out

    by_rule = dry_run._by_rule
    monkeypatch.setattr(dry_run, "_by_rule", spy)
    inputs = on_meta(shapes)
    with torch.no_grad(), DryRun():
        network(*inputs)
    aten = torch.ops.aten
    in_cpp = {aten.slice.Tensor, aten.expand.default, aten.transpose.int, aten.t.default, aten.permute.default}
    in_cpp |= {aten.unsqueeze.default, aten.squeeze.dim, aten._unsafe_view.default}
    in_cpp |= {aten.empty.memory_format, aten.clone.default}
    assert set(called) <= in_cpp


@given(
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    transposed=st.booleans(),
    bias=st.booleans(),
)
def test_every_convolution_has_the_shape_and_count_of_the_real_one(
    channels: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
    bias: bool,
):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": bias}
    conv = kind(groups * channels[0], groups * channels[1], kernel, **settings)
    x = torch.zeros(2, groups * channels[0], 7, 6)
    real, flops = count(conv, [x])
    assume(real.numel())
    with torch.no_grad(), DryRun() as run:
        out = conv.to("meta")(x.to("meta"))
    assert out.shape == real.shape
    assert run.flops == flops


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        (F.conv2d, ((2, 4, 9, 9), (6, 3, 3, 3))),
        (F.conv2d, ((2, 4, 2, 2), (6, 4, 3, 3))),
        (F.linear, ((2, 4), (3, 5))),
        (F.linear, ((2, 4), (3, 4), (4,))),
        (torch.bmm, ((2, 3, 4), (3, 4, 5))),
        (torch.add, ((2, 3), (2, 4))),
        (lambda x, y: torch.cat([x, y], dim=1), ((2, 3), (3, 3))),
        (lambda x: x.view(5, -1), ((2, 3),)),
    ],
)
def test_what_does_not_fit_is_an_error_as_without(network: Network, shapes: tuple[tuple[int, ...], ...]):
    with torch.no_grad(), DryRun(), pytest.raises(RuntimeError):
        network(*on_meta(shapes))


def test_whole_layers_are_counted_like_their_parts():
    attention = nn.MultiheadAttention(8, 2, batch_first=True, device="meta")
    lstm = nn.LSTM(8, 4, batch_first=True, device="meta")
    x = torch.empty(2, 5, 8, device="meta")
    for network in (lambda x: attention(x, x, x)[0], lambda x: lstm(x)[0]):
        _, flops = count(network, [x])
        with torch.no_grad(), DryRun() as run:
            network(x)
        assert run.flops == flops > 0


def test_operators_of_inference_mode_are_counted():
    with torch.inference_mode(), DryRun() as run:
        out = F.linear(*on_meta(((2, 5, 4), (3, 4), (3,))))
    assert out.shape == (2, 5, 3)
    assert run.flops == 2 * 2 * 5 * 4 * 3


def test_real_tensors_are_computed():
    with DryRun() as run:
        product = torch.full((2, 3), 2.0) @ torch.ones(3, 1) + 1
    assert product.tolist() == [[7.0], [7.0]]
    assert run.flops == 2 * 2 * 3


def test_operators_outside_of_the_context_are_not_counted():
    with DryRun() as run:
        pass
    torch.ones(2, 3) @ torch.ones(3, 1)
    assert run.flops == 0


def test_without_initialization_tensors_stay_as_they_are():
    x = torch.full((2, 3), 7.0)
    with WithoutInitialization():
        assert nn.init.normal_(x) is x
        assert nn.init.kaiming_uniform_(tensor=x) is x
        assert nn.init.constant_(x, 1.0) is x
    assert x.eq(7).all()


def test_without_initialization_everything_else_is_computed():
    with WithoutInitialization():
        assert (torch.ones(2) + 1).relu_().tolist() == [2.0, 2.0]
        assert torch.ones(2).fill_(3).tolist() == [3.0, 3.0]


def test_sizes_that_no_tensor_has_are_one_line():
    config = replace(sngan.Config(), num_classes=2**63 - 1)
    with pytest.raises(UserError, match=r"^the networks of these options need more memory than any machine has\.$"):
        build_on_meta(sngan.RECIPE, config)
