import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as older_spectral_norm

from gan_blocks import from_torch_spectral_norm, spectral_norm


def model(normalize) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        normalize(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), normalize(nn.ConvTranspose2d(4, 2, 2, bias=False))
    )


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize("theirs", [older_spectral_norm, parametrizations.spectral_norm])
def test_a_model_with_the_state_of_torch_computes_the_same(theirs, rng: torch.Generator):
    old, new = model(theirs), model(spectral_norm)
    x = torch.randn(2, 3, 6, 6, generator=rng)
    old(x)
    state = old.state_dict()
    keys = list(state)
    new.load_state_dict(from_torch_spectral_norm(state))
    assert list(state) == keys
    torch.testing.assert_close(new.eval()(x), old.eval()(x))


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize("theirs", [older_spectral_norm, parametrizations.spectral_norm])
def test_the_state_of_one_layer_and_of_another_tensor_converts_too(theirs):
    torch.manual_seed(0)
    layer = nn.Module()
    layer.table = nn.Parameter(torch.randn(3, 5))
    state = from_torch_spectral_norm(theirs(layer, "table").state_dict())
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "parametrizations.table.original": (3, 5),
        "parametrizations.table.0.u": (1, 3),
        "parametrizations.table.0.v": (1, 5),
    }


def test_other_entries_and_the_hidden_versions_are_kept():
    state = spectral_norm(nn.Conv2d(3, 4, 3)).state_dict()
    state["weight_u"], state["weight_orig"] = torch.zeros(2), torch.zeros(1)
    del state["weight_orig"]
    converted = from_torch_spectral_norm(state)
    assert type(converted) is type(state)
    assert dict(converted) == dict(state)
    assert converted._metadata is state._metadata


def test_rejects_the_older_state_without_its_right_vector():
    state = {"conv.weight_orig": torch.zeros(2, 2), "conv.weight_u": torch.zeros(2)}
    message = (
        "from_torch_spectral_norm: `state_dict` must be complete, with conv.weight_v beside conv.weight_u, but got "
        "state_dict=['conv.weight_orig', 'conv.weight_u']. "
        "Load it into the old model with a newer torch and save it again."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        from_torch_spectral_norm(state)
