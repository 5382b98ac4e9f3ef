import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_blocks import clip_weights_, drift_penalty, spectral_norm
from tests.reference import losses as reference


@given(real=st.lists(st.floats(-10, 10), min_size=1, max_size=8), coefficient=st.floats(1e-4, 1))
def test_drift_equals_the_mean_of_squared_outputs(real: list[float], coefficient: float):
    value = drift_penalty(real_logits=torch.tensor(real, dtype=torch.float64), coefficient=coefficient)
    assert value.item() == pytest.approx(reference.drift_penalty(real, coefficient), abs=1e-12)


def test_drift_takes_patches_and_adds_scales():
    patches, other = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), torch.tensor([2.0])
    assert drift_penalty(real_logits=patches, coefficient=1).item() == pytest.approx(30 / 4)
    assert drift_penalty(real_logits=[patches, other], coefficient=1).item() == pytest.approx(30 / 4 + 4)


def test_drift_of_narrow_outputs_does_not_overflow():
    assert drift_penalty(real_logits=torch.full((3,), 400.0).half(), coefficient=1).item() == 160_000


def test_gradients_of_drift_agree_with_finite_differences(rng: torch.Generator):
    logits = torch.randn(4, dtype=torch.float64, generator=rng, requires_grad=True)
    assert torch.autograd.gradcheck(lambda real: drift_penalty(real_logits=real, coefficient=0.5), (logits,))


def test_clipping_limits_every_parameter_and_leaves_small_ones_alone():
    critic = nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.Linear(4, 1))
    parameters = list(critic.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.linspace(-0.05, 0.04, parameter.numel()).reshape(parameter.shape))
    before = [parameter.detach().clone() for parameter in parameters]
    clip_weights_(critic, bound=0.02)
    for parameter, old in zip(parameters, before, strict=True):
        expected = [max(-0.02, min(0.02, value)) for value in old.flatten().tolist()]
        assert parameter.flatten().tolist() == pytest.approx(expected, abs=1e-9)


def test_clipping_counts_as_an_update_of_a_normalized_weight():
    layer = spectral_norm(nn.Linear(3, 4), warmup_iterations=0)
    before = layer.parametrizations.weight[0].u.clone()
    clip_weights_(layer)
    _ = layer.weight
    assert not torch.equal(layer.parametrizations.weight[0].u, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: drift_penalty(real_logits=torch.zeros(2), coefficient=0),
            "drift_penalty: `coefficient` must be greater than 0, but got coefficient=0.",
        ),
        (
            lambda: drift_penalty(real_logits=torch.zeros(0)),
            "drift_penalty: `real_logits` must be of shape (batch, ...) with at least one sample, "
            "but got real_logits of shape (0,).",
        ),
        (
            lambda: clip_weights_(nn.Linear(2, 1), bound=0),
            "clip_weights_: `bound` must be greater than 0, but got bound=0.",
        ),
    ],
)
def test_rejects_wrong_arguments_by_name(call: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
