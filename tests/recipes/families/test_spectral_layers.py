"""Layers with spectral norm, as the recipes build them."""

import pytest
import torch
from torch import nn

from gan_blocks import init_orthogonal_, spectral_norm
from recipes.families.spectral_layers import spectral_layers


@pytest.mark.parametrize(
    ("build", "plain"),
    [
        (
            lambda layers: layers.conv2d(4, 6, 3, padding=1, bias=False),
            lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False),
        ),
        (lambda layers: layers.linear(5, 7), lambda: nn.Linear(5, 7)),
        (lambda layers: layers.embedding(9, 4), lambda: nn.Embedding(9, 4)),
    ],
)
def test_a_layer_is_the_orthogonal_and_normalized_one_of_torch_with_the_same_random_numbers(build, plain):
    torch.manual_seed(1)
    layer = build(spectral_layers(eps=1e-3))
    torch.manual_seed(1)
    expected = spectral_norm(init_orthogonal_(plain()), eps=1e-3)
    assert repr(layer) == repr(expected)
    state = layer.state_dict()
    assert list(state) == list(expected.state_dict())
    assert all(value.equal(state[name]) for name, value in expected.state_dict().items())
