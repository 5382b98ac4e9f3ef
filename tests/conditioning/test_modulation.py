import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_blocks import FiLM2d
from tests.drawn import draw
from tests.reference import conditioning as reference

CHANNELS, WIDTH = 3, 2


def make() -> FiLM2d:
    return FiLM2d(CHANNELS, WIDTH).double()


@given(batch=st.integers(1, 3), height=st.integers(1, 3), width=st.integers(1, 3), training=st.booleans())
def test_equals_the_formula_pixel_by_pixel(batch: int, height: int, width: int, training: bool):
    modulation = make().train(training)
    x, condition = draw(batch, CHANNELS, height, width) + 5, draw(batch, WIDTH, seed=1)
    weights = (layer.weight.detach().numpy() for layer in (modulation.gain, modulation.bias))
    nothing = np.zeros(CHANNELS), np.ones(CHANNELS)  # mean and variance that normalize by nothing
    expected = reference.conditional_batch_norm(x.numpy(), condition.numpy(), *weights, 0.0, nothing)
    np.testing.assert_allclose(modulation(x, condition).detach(), expected, rtol=1e-12, atol=1e-12)


def test_a_condition_of_zeros_is_the_identity():
    x = draw(2, CHANNELS, 3, 3)
    assert torch.equal(make()(x, torch.zeros(2, WIDTH, dtype=torch.float64)), x)


def test_gradients_agree_with_finite_differences_to_second_order():
    modulation = make()
    inputs = (draw(2, CHANNELS, 2, 2).requires_grad_(), draw(2, WIDTH, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(modulation, inputs)
    assert torch.autograd.gradgradcheck(modulation, inputs)


def test_projections_come_from_the_factory_without_bias_and_are_the_whole_state():
    calls = []

    def linear(*sizes: int, bias: bool = True) -> nn.Module:
        calls.append((sizes, bias))
        return nn.Linear(*sizes, bias=bias)

    source, target = (FiLM2d(CHANNELS, WIDTH, linear_layer=linear).double() for _ in range(2))
    assert calls == [((WIDTH, CHANNELS), False)] * 4
    assert set(source.state_dict()) == {"gain.weight", "bias.weight"}
    target.load_state_dict(source.state_dict())
    x, condition = draw(2, CHANNELS, 3, 3), draw(2, WIDTH)
    assert torch.equal(target(x, condition), source(x, condition))


def test_keeps_dtype_and_memory_format_compiles_and_runs_on_meta():
    modulation, condition = make(), draw(2, WIDTH)
    x = draw(2, CHANNELS, 4, 5).contiguous(memory_format=torch.channels_last)
    y = modulation(x, condition)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(torch.compile(modulation, fullgraph=True, backend="eager")(x, condition), y)
    assert modulation.float()(x.bfloat16(), condition.float()).dtype == torch.bfloat16
    assert modulation.to("meta")(x.to("meta"), condition.float().to("meta")).shape == x.shape


@pytest.mark.parametrize("name", ["num_features", "condition_dim"])
def test_rejects_sizes_of_zero(name: str):
    sizes = {"num_features": 3, "condition_dim": 2, name: 0}
    pattern = rf"^FiLM2d: `{name}` must be greater than 0, but got {name}=0\.$"
    with pytest.raises(ValueError, match=pattern):
        FiLM2d(**sizes)


def test_rejects_inputs_that_do_not_fit():
    pattern = r"`x` must be of shape \(batch, 3, height, width\), but got x of shape \(2, 4, 2, 2\)\.$"
    with pytest.raises(ValueError, match=pattern):
        make()(torch.zeros(2, 4, 2, 2), torch.zeros(2, WIDTH))
    pattern = r"`condition` must be of shape \(2, 2\), but got condition of shape \(1, 2\)\.$"
    with pytest.raises(ValueError, match=pattern):
        make()(torch.zeros(2, 3, 2, 2), torch.zeros(1, WIDTH))
    with pytest.raises(
        TypeError, match=r"^FiLM2d: `condition` must be a tensor, but got condition of type NoneType\.$"
    ):
        make()(torch.zeros(2, 3, 2, 2), None)
