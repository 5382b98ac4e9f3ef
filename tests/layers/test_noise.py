import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_blocks import AdaptiveGaussianNoise, update_adaptive_noise
from tests.reference import layers as reference


def noise_at(average: float, **options) -> AdaptiveGaussianNoise:
    noise = AdaptiveGaussianNoise(**options)
    noise.output_average.fill_(average)
    return noise


@pytest.mark.parametrize("average", [0.75, 1.0, 1.5])
def test_the_strength_is_that_of_appendix_b(average: float):
    factors = noise_at(average)(torch.ones(1000, 300))
    wanted = 0.2 * (average - 0.5) ** 2 * 300**0.5
    assert factors.mean().item() == pytest.approx(1, abs=5 * wanted / 300_000**0.5)
    assert factors.std().item() == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("average", [0.3, 0.9])
def test_equals_the_loops_over_samples_and_channels(average: float):
    noise, x = noise_at(average, dtype=torch.float64), torch.randn(3, 4, 2, 5, dtype=torch.float64)
    torch.manual_seed(5)
    y = noise(x)
    torch.manual_seed(5)
    draws = torch.randn(3, 4, 1, 1, dtype=torch.float64)[:, :, 0, 0]
    wanted = reference.adaptive_noise(x.numpy(), draws.numpy(), average)
    np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-12)


@given(average=st.floats(-3, 0.5))
def test_there_is_none_up_to_the_threshold(average: float):
    x = torch.randn(4, 3)
    assert torch.equal(noise_at(average)(x), x)


def test_every_channel_of_every_sample_has_a_draw_of_its_own_for_all_its_pixels():
    y = noise_at(1.0)(torch.ones(2, 3, 4, 4))
    assert torch.equal(y, y[:, :, :1, :1].expand_as(y))
    assert y.unique().numel() == 2 * 3


def test_it_multiplies():
    noise = noise_at(1.0)
    torch.manual_seed(3)
    once = noise(torch.ones(10, 5))
    torch.manual_seed(3)
    torch.testing.assert_close(noise(torch.full((10, 5), -7.0)), -7 * once)
    assert not noise(torch.zeros(5, 1)).any()


def test_the_average_follows_the_certainty_about_generated_images():
    """Of a mean of 0, their target, that is 1; of 1, the target of real images, 0; beyond these, it is clipped."""
    noise, wanted = AdaptiveGaussianNoise(), 0.0
    cases = [([0.0], 1.0), ([1.0, 0.0, 0.8], 0.4), ([0.25, 0.75], 0.5), ([1.0], 0.0), ([-3.0, 1.0], 1.0), ([2.5], 0.0)]
    for logits, certainty in cases:
        noise.update(torch.tensor(logits))
        wanted = 0.9 * wanted + 0.1 * certainty
        assert noise.output_average.item() == pytest.approx(wanted, rel=1e-6)


def test_a_batch_of_nan_leaves_the_average_as_it_is():
    noise = noise_at(0.6)
    noise.update(torch.tensor([0.5, float("nan")]))
    assert noise.output_average.item() == pytest.approx(0.6)
    noise.update(torch.tensor([0.0]))
    assert noise.output_average.item() == pytest.approx(0.9 * 0.6 + 0.1)


def test_all_layers_of_a_discriminator_are_told_at_once():
    network = nn.Sequential(AdaptiveGaussianNoise(), nn.Linear(2, 2), nn.Sequential(AdaptiveGaussianNoise(decay=0.5)))
    logits = torch.tensor([0.4, 0.0], dtype=torch.float64, requires_grad=True)
    update_adaptive_noise(network, fake_logits=logits)
    assert [buffer.item() for buffer in network.buffers()] == pytest.approx([0.08, 0.4])
    assert not any(buffer.requires_grad for buffer in network.buffers())
    update_adaptive_noise(nn.Linear(1, 1), fake_logits=logits)  # without such layers nothing happens


def test_evaluation_is_silent_and_forward_passes_change_nothing():
    noise, x = noise_at(2.0), torch.randn(5, 2)
    state = copy.deepcopy(noise.state_dict())
    noise(x)
    assert set(state) == {"output_average"}
    assert torch.equal(noise.state_dict()["output_average"], state["output_average"])
    assert torch.equal(noise.eval()(x), x)


def test_keeps_dtype_and_compiles():
    noise, x = noise_at(1.0), torch.randn(2, 3, 4, 4, dtype=torch.bfloat16)
    assert noise(x).dtype == torch.bfloat16
    compiled = torch.compile(noise, fullgraph=True, backend="eager")
    assert compiled(x).shape == x.shape
    assert noise.to("meta")(x.to("meta")).shape == x.shape


def test_gradients_are_the_factors():
    x = torch.randn(3, 2, requires_grad=True)
    y = noise_at(1.0)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach())


def test_rejects_wrong_arguments():
    with pytest.raises(
        ValueError, match=r"^AdaptiveGaussianNoise: `strength` must be greater than 0, but got strength=0"
    ):
        AdaptiveGaussianNoise(strength=0)
    for decay in (-0.1, 1.0):
        rule = rf"^AdaptiveGaussianNoise: `decay` must be at least 0 and less than 1, but got decay={decay}\.$"
        with pytest.raises(ValueError, match=rule):
            AdaptiveGaussianNoise(decay=decay)
    rule = r"^AdaptiveGaussianNoise: `x` must be of shape \(batch, channels, \.\.\.\), but got x of shape \(5,\)\.$"
    with pytest.raises(ValueError, match=rule):
        AdaptiveGaussianNoise()(torch.zeros(5))
    rule = (
        r"^update_adaptive_noise: `fake_logits` must be of shape \(batch,\) with at least one sample, "
        r"but got fake_logits of shape \({}\)\.$"
    )
    for shape, text in (((0,), "0,"), ((2, 1), "2, 1")):
        with pytest.raises(ValueError, match=rule.format(text)):
            AdaptiveGaussianNoise().update(torch.zeros(shape))
