import pytest
import torch

from gan_blocks import LearnedConstant2d
from tests.drawn import draw


def test_every_sample_has_the_map_scaled_by_channel():
    layer, scale = LearnedConstant2d(3, 2, 5, dtype=torch.float64), draw(4, 3)
    maps = layer(scale)
    assert maps.shape == (4, 3, 2, 5)
    for sample in range(4):
        for channel in range(3):
            assert torch.equal(maps[sample, channel], scale[sample, channel] * layer.constant[channel])


def test_the_map_is_square_by_default_and_drawn_from_a_normal_distribution():
    torch.manual_seed(0)
    constant = LearnedConstant2d(64, 8).constant
    assert constant.shape == (64, 8, 8)
    assert abs(constant.mean()) < 0.05
    assert abs(constant.std() - 1) < 0.05


def test_gradients_agree_with_finite_differences():
    layer, scale = LearnedConstant2d(2, 2, dtype=torch.float64), draw(3, 2).requires_grad_()
    call = torch.func.functional_call
    assert torch.autograd.gradcheck(lambda s, c: call(layer, {"constant": c}, (s,)), (scale, layer.constant))


def test_under_autocast_the_result_is_as_narrow_as_what_scales_it():
    layer, linear, z = LearnedConstant2d(3, 2), torch.nn.Linear(4, 3), draw(2, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = layer(linear(z))
    assert maps.dtype == torch.bfloat16
    torch.testing.assert_close(maps.float(), layer(linear(z)), rtol=0.03, atol=0.03)


def test_rejects_other_sizes():
    with pytest.raises(ValueError, match=r"^LearnedConstant2d: `width` must be greater than 0"):
        LearnedConstant2d(1, 1, 0)
    with pytest.raises(ValueError, match=r"^LearnedConstant2d: `scale` must be of shape \(batch, 3\)"):
        LearnedConstant2d(3, 4)(torch.zeros(2, 4))
