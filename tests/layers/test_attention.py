import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from gan_blocks import SelfAttention2d
from tests.drawn import draw
from tests.reference import layers as reference

halves = st.integers(1, 3)


def build(channels: int = 8, *, gamma: float = 0.7, seed: int = 1) -> SelfAttention2d:
    """A float64 block whose weights are large enough for uneven attention."""
    attention = SelfAttention2d(channels).double()
    for offset, parameter in enumerate(attention.parameters()):
        parameter.data.copy_(draw(*parameter.shape, seed=seed + offset))
    attention.gamma.data.fill_(gamma)
    return attention


def plain(attention: SelfAttention2d, x: Tensor) -> Tensor:
    """The same block with torch's own operations and no padding, for sizes too large for the loops."""
    query, key, value = attention.theta(x), F.max_pool2d(attention.phi(x), 2), F.max_pool2d(attention.g(x), 2)
    weights = torch.softmax(torch.einsum("bchw,bcij->bhwij", query, key).flatten(-2), dim=-1)
    gathered = torch.einsum("bhwk,bck->bchw", weights, value.flatten(-2))
    return x + attention.gamma * attention.out(gathered)


@given(
    channels=st.sampled_from([8, 16]),
    batch=st.integers(1, 2),
    height=halves,
    width=halves,
    gamma=st.floats(-1, 1),
    seed=st.integers(0, 9),
)
def test_equals_the_sums_over_pixels(channels: int, batch: int, height: int, width: int, gamma: float, seed: int):
    attention = build(channels, gamma=gamma, seed=seed)
    x = draw(batch, channels, 2 * height, 2 * width)
    weights = (getattr(attention, name).weight.detach().numpy()[:, :, 0, 0] for name in ("theta", "phi", "g", "out"))
    wanted = reference.self_attention(x.numpy(), *weights, gamma)
    np.testing.assert_allclose(attention(x).detach(), wanted, atol=1e-9)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_fast_path_equals_the_plain_one_in_values_and_gradients(memory_format: torch.memory_format):
    attention = build(64, gamma=0.7)
    with torch.no_grad():
        attention.theta.weight.mul_(0.1)  # keeps the softmax away from one-hot, where all gradients vanish
    results = []
    for run in (attention, lambda x: plain(attention, x)):
        x = draw(2, 64, 16, 16).to(memory_format=memory_format).requires_grad_()
        y = run(x)
        weight = draw(*y.shape, seed=7)
        results.append([y, *torch.autograd.grad((weight * y).sum(), [x, *attention.parameters()])])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("autocast", [False, True])
def test_takes_the_flash_path_on_the_cpu(memory_format: torch.memory_format, autocast: bool):
    attention = SelfAttention2d(16).to(memory_format=memory_format)
    x = draw(2, 16, 4, 4).float().to(memory_format=memory_format)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), profile(activities=[ProfilerActivity.CPU]) as p:
        attention(x)
    operations = {event.key for event in p.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in operations


@given(height=halves, width=halves)
def test_is_the_identity_before_training(height: int, width: int):
    x = draw(2, 8, 2 * height, 2 * width)
    assert torch.equal(SelfAttention2d(8).double()(x), x)


def test_gamma_receives_a_gradient_from_the_start():
    attention = build(gamma=0.0)
    attention(draw(1, 8, 2, 2)).square().sum().backward()
    assert attention.gamma.grad.abs() > 1e-3
    assert not attention.theta.weight.grad.any()


def test_follows_a_permutation_of_whole_pooling_squares():
    attention, x = build(), draw(2, 8, 4, 6)
    squares = x.reshape(2, 8, 2, 2, 3, 2)
    shuffled = squares[:, :, [1, 0]][:, :, :, :, [2, 0, 1]].reshape_as(x)
    y = attention(x).reshape_as(squares)[:, :, [1, 0]][:, :, :, :, [2, 0, 1]].reshape_as(x)
    torch.testing.assert_close(attention(shuffled), y)
    assert not torch.allclose(attention(shuffled), attention(x))


def test_samples_do_not_see_one_another():
    attention, x = build(), draw(3, 8, 4, 4)
    torch.testing.assert_close(attention(x)[:1], attention(x[:1]))


def test_uniform_attention_gathers_the_mean_of_the_pooled_values():
    attention, x = build(gamma=1.0), draw(2, 8, 4, 4)
    attention.theta.weight.data.zero_()
    mean = F.max_pool2d(attention.g(x), 2).mean((2, 3), keepdim=True)
    torch.testing.assert_close(attention(x), x + attention.out(mean))


def test_gradients_agree_with_finite_differences():
    attention, x = build(), draw(1, 8, 2, 4).requires_grad_()
    names = [name for name, _ in attention.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(attention, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *attention.parameters()))
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(lambda x: attention(x)[:, ::4], (x,))


def test_state_survives_a_round_trip():
    attention, x = build(), draw(1, 8, 2, 2)
    assert {name: tuple(value.shape) for name, value in attention.state_dict().items()} == {
        "gamma": (),
        "theta.weight": (1, 8, 1, 1),
        "phi.weight": (1, 8, 1, 1),
        "g.weight": (4, 8, 1, 1),
        "out.weight": (8, 4, 1, 1),
    }
    fresh = SelfAttention2d(8).double()
    fresh.load_state_dict(copy.deepcopy(attention.state_dict()))
    assert torch.equal(fresh(x), attention(x))
    assert torch.equal(copy.deepcopy(attention)(x), attention(x))
    assert torch.equal(attention.eval()(x), attention.train()(x))


def test_all_convolutions_come_from_the_factory():
    class Conv(nn.Conv2d):
        pass

    attention = SelfAttention2d(8, conv_layer=Conv)
    assert [type(child) for child in attention.children()] == [Conv] * 4


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_keeps_the_memory_format(memory_format: torch.memory_format):
    x = draw(2, 8, 4, 6).to(memory_format=memory_format)
    assert build()(x).is_contiguous(memory_format=memory_format)


def test_bfloat16_autocast_stays_close_to_the_exact_result():
    attention, x = build(gamma=0.1), draw(2, 8, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = copy.deepcopy(attention).float()(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), attention(x), rtol=0.05, atol=0.1)


def test_compiles_without_graph_breaks_and_runs_on_meta():
    torch.compiler.reset()
    attention, x = build(), draw(2, 8, 4, 4)
    compiled = torch.compile(attention, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), attention(x))
    assert copy.deepcopy(attention).to("meta")(x.to("meta")).shape == x.shape


def test_shows_its_channels():
    assert repr(SelfAttention2d(16)).startswith("SelfAttention2d(\n  16\n")


@pytest.mark.parametrize("channels", [0, -8, 4, 12])
def test_rejects_a_channel_count_that_eight_does_not_divide(channels: int):
    message = rf"^SelfAttention2d: `channels` must be a positive multiple of 8, but got channels={channels}\.$"
    with pytest.raises(ValueError, match=message):
        SelfAttention2d(channels)


@pytest.mark.parametrize("shape", [(1, 8, 3, 2), (1, 8, 2, 3), (1, 16, 2, 2), (8, 2, 2), (1, 8, 0, 2), (8,)])
def test_rejects_odd_sizes_and_other_shapes(shape: tuple[int, ...]):
    message = (
        r"^SelfAttention2d: `x` must be of shape \(batch, 8, height, width\) with even height and width, "
        rf"but got x of shape \({', '.join(map(str, shape))},?\)\.$"
    )
    with pytest.raises(ValueError, match=message):
        SelfAttention2d(8)(torch.zeros(shape))
