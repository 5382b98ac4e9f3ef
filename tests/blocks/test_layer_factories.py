import pickle
from functools import partial

import pytest
import torch
from torch import nn

from gan_blocks import (
    ClassConditionalBatchNorm2d,
    SpectralNorm,
    estimated_singular_values,
    init_orthogonal_,
    normalize_layers,
    normalized_layer,
    spectral_norm,
)


@pytest.mark.parametrize(
    ("layer", "sizes"),
    [(nn.Conv2d, (3, 8, 3)), (nn.Linear, (5, 4)), (nn.Embedding, (7, 3)), (nn.ConvTranspose2d, (4, 4, 2))],
)
def test_by_default_a_layer_is_orthogonal_and_then_spectrally_normalized_with_the_same_random_numbers(layer, sizes):
    torch.manual_seed(0)
    made = normalized_layer(layer)(*sizes)
    torch.manual_seed(0)
    wanted = spectral_norm(init_orthogonal_(layer(*sizes)))
    assert made.state_dict().keys() == wanted.state_dict().keys()
    assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in made.state_dict().items())


def test_options_reach_the_layer_and_other_normalizations_and_initializations_are_taken():
    scaled = normalized_layer(nn.Conv2d, normalize=partial(spectral_norm, eps=100.0), init=None)
    conv = scaled(3, 4, 3, padding=1, bias=False)
    assert conv.padding == (1, 1)
    assert conv.bias is None
    torch.testing.assert_close(100 * conv.weight, conv.parametrizations.weight.original)
    torch.manual_seed(0)
    plain = nn.Linear(3, 3)
    torch.manual_seed(0)
    kept = normalized_layer(nn.Linear, init=None)(3, 3)
    assert torch.equal(kept.parametrizations.weight.original, plain.weight)


def test_a_factory_can_be_pickled():
    factory = pickle.loads(pickle.dumps(normalized_layer(nn.Linear)))
    assert estimated_singular_values(factory(4, 3)).item() == pytest.approx(1, abs=1e-3)


def test_a_whole_model_has_its_layers_normalized_and_nothing_else():
    fixed = spectral_norm(nn.Linear(2, 2), eps=0.5)
    before = fixed.parametrizations.weight.original.clone()
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ModuleList([nn.Linear(4, 2), nn.Embedding(3, 2)]), fixed
    )
    model.append(ClassConditionalBatchNorm2d(4, num_classes=3))
    assert normalize_layers(model) is model
    assert sum(isinstance(module, SpectralNorm) for module in model.modules()) == 4
    weight = model[0].parametrizations.weight.original.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(4), rtol=0, atol=1e-5)
    assert torch.equal(fixed.parametrizations.weight.original, before)
    assert not model[4].gain.weight.any()
    with pytest.raises(
        ValueError, match=r"^normalize_layers: `model` must be a module with convolutions, linear layers"
    ):
        normalize_layers(model)


@pytest.mark.parametrize("normalize", [torch.nn.utils.spectral_norm, torch.nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_layers_that_a_hook_normalizes_stay_as_they_are(normalize):
    model = nn.Sequential(nn.Linear(3, 3), normalize(nn.Linear(3, 3)))
    before = {name: value.clone() for name, value in model[1].state_dict().items()}
    normalize_layers(model)
    assert isinstance(model[0].parametrizations.weight[0], SpectralNorm)
    assert model[1].state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model[1].state_dict().items())


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_a_model_with_lazy_layers_is_refused_before_anything_has_changed():
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))
    before = model[0].weight.clone()
    message = (
        r"^normalize_layers: `model` must not have uninitialized parameters, but got model with 1\.weight, 1\.bias\."
    )
    with pytest.raises(RuntimeError, match=message):
        normalize_layers(model)
    assert torch.equal(model[0].weight, before)


def test_a_layer_is_no_factory():
    pattern = (
        r"^normalized_layer: `layer` must be a class or function that makes layers, but got layer of type Linear\. "
    )
    with pytest.raises(
        TypeError, match=pattern + r"Layers that are there already are normalized by normalize_layers\.$"
    ):
        normalized_layer(nn.Linear(3, 3))
