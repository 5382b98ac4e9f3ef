import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_blocks import AdaptiveGaussianNoise, update_adaptive_noise


def noise_at(average: float, **options) -> AdaptiveGaussianNoise:
    noise = AdaptiveGaussianNoise(**options)
    noise.output_average.fill_(average)
    return noise


@pytest.mark.parametrize("average", [0.75, 1.0, 1.5])
def test_the_strength_is_that_of_appendix_b(average: float):
    factors = noise_at(average)(torch.ones(300_000))
    wanted = 0.2 * (average - 0.5) ** 2
    assert factors.mean().item() == pytest.approx(1, abs=5 * wanted / 300_000**0.5)
    assert factors.std().item() == pytest.approx(wanted, rel=0.02)


@given(average=st.floats(-3, 0.5))
def test_there_is_none_up_to_the_threshold(average: float):
    x = torch.randn(4, 3)
    assert torch.equal(noise_at(average)(x), x)


def test_every_element_has_a_draw_of_its_own():
    x = torch.ones(2, 3, 4, 4)
    assert noise_at(1.0)(x).unique().numel() == x.numel()


def test_it_multiplies():
    noise = noise_at(1.0)
    torch.manual_seed(3)
    once = noise(torch.ones(50))
    torch.manual_seed(3)
    torch.testing.assert_close(noise(torch.full((50,), -7.0)), -7 * once)
    assert not noise(torch.zeros(5)).any()


def test_the_average_follows_the_real_outputs():
    noise, wanted = AdaptiveGaussianNoise(), 0.0
    for logits in ([1.0, 3.0], [0.5], [-2.0, 2.0, 6.0]):
        noise.update(torch.tensor(logits))
        wanted = 0.9 * wanted + 0.1 * sum(logits) / len(logits)
        assert noise.output_average.item() == pytest.approx(wanted, rel=1e-6)


def test_all_layers_of_a_discriminator_are_told_at_once():
    network = nn.Sequential(AdaptiveGaussianNoise(), nn.Linear(2, 2), nn.Sequential(AdaptiveGaussianNoise(decay=0.5)))
    logits = torch.tensor([2.0], requires_grad=True)
    update_adaptive_noise(network, real_logits=logits)
    assert [buffer.item() for buffer in network.buffers()] == pytest.approx([0.2, 1.0])
    assert not any(buffer.requires_grad for buffer in network.buffers())
    update_adaptive_noise(nn.Linear(1, 1), real_logits=logits)  # without such layers nothing happens


def test_evaluation_is_silent_and_forward_passes_change_nothing():
    noise, x = noise_at(2.0), torch.randn(5)
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
    x = torch.randn(6, requires_grad=True)
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
    rule = (
        r"^AdaptiveGaussianNoise: `real_logits` must be of shape \(batch,\) with at least one sample, "
        r"but got real_logits of shape \({}\)\.$"
    )
    for shape, text in (((0,), "0,"), ((2, 1), "2, 1")):
        with pytest.raises(ValueError, match=rule.format(text)):
            AdaptiveGaussianNoise().update(torch.zeros(shape))
