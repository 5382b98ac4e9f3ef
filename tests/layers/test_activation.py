import pytest
import torch
from torch import nn

from gan_blocks import BiasedActivation, ResidualDiscriminatorBlock
from tests.drawn import draw


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_each_channel_has_its_bias_before_the_activation(shape: tuple[int, ...]):
    layer, x = BiasedActivation(3, dtype=torch.float64), draw(*shape)
    assert torch.equal(layer(x), nn.functional.leaky_relu(x, 0.2))
    nn.init.normal_(layer.bias)
    for channel in range(3):
        expected = nn.functional.leaky_relu(x[:, channel] + layer.bias[channel], 0.2)
        assert torch.equal(layer(x)[:, channel], expected)


def test_gradients_agree_with_finite_differences():
    layer = BiasedActivation(3, act_layer=nn.Tanh, dtype=torch.float64)
    x = draw(2, 3, 2, 2).requires_grad_()
    run = torch.autograd.gradcheck
    assert run(lambda x, bias: torch.func.functional_call(layer, {"bias": bias}, (x,)), (x, layer.bias))


def test_under_autocast_the_result_is_as_narrow_as_the_input():
    layer, x = BiasedActivation(3), draw(2, 3, 4, 4, dtype=torch.float32).bfloat16()
    nn.init.normal_(layer.bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x.float()), rtol=0.02, atol=0.02)


def test_it_is_the_activation_of_a_block_as_its_norm():
    block = ResidualDiscriminatorBlock(4, 4, norm_layer=BiasedActivation, act_layer=nn.Identity).double()
    x = draw(2, 4, 4, 4)
    h = block.conv1(nn.functional.leaky_relu(x, 0.2))
    torch.testing.assert_close(block(x), x + block.conv2(nn.functional.leaky_relu(h, 0.2)))


def test_rejects_other_sizes():
    with pytest.raises(ValueError, match=r"^BiasedActivation: `num_features` must be greater than 0"):
        BiasedActivation(0)
    with pytest.raises(ValueError, match=r"^BiasedActivation: `x` must be of shape \(batch, 3, \.\.\.\)"):
        BiasedActivation(3)(torch.zeros(2, 4))
