"""What cannot be normalized, folded or reported: one line that names the argument."""

import re
from functools import partial

import pytest
import torch
from torch import nn

from gan_blocks import (
    SpectrumMonitor,
    clamp_sigma,
    estimated_singular_values,
    fold_spectral_norm,
    spectral_norm,
    top_singular_triplets,
)


def bilinear_with_a_narrow_weight() -> nn.Module:
    return nn.Bilinear(1, 2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "`eps` must be greater than 0, but got eps=0."),
        ({"n_power_iterations": 0}, "`n_power_iterations` must be at least 1, but got n_power_iterations=0."),
        ({"warmup_iterations": -1}, "`warmup_iterations` must be at least 0, but got warmup_iterations=-1."),
        ({"dim": 3}, "`dim` must be between -3 and 2, but got dim=3."),
        (
            {"num_singular_values": 0},
            "`num_singular_values` must be between 1 and min(out, rest) = 2, but got num_singular_values=0.",
        ),
        (
            {"num_singular_values": 3},
            "`num_singular_values` must be between 1 and min(out, rest) = 2, but got num_singular_values=3.",
        ),
    ],
)
def test_rejects_numbers_outside_their_range_and_leaves_the_layer_as_it_was(options: dict[str, float], message: str):
    layer = bilinear_with_a_narrow_weight()
    with pytest.raises(ValueError, match=f"^{re.escape(f'SpectralNorm: {message}')}$"):
        spectral_norm(layer, **options)
    assert type(layer) is nn.Bilinear


def test_rejects_a_parameter_with_one_dimension():
    rule = r"^SpectralNorm: `weight` must be of shape \(out, in, \.\.\.\), but got weight of shape \(3,\)\.$"
    with pytest.raises(ValueError, match=rule):
        spectral_norm(nn.Linear(4, 3), "bias")


@pytest.mark.parametrize(
    ("layer", "name", "message"),
    [
        (nn.Linear(2, 2), "wieght", "an initialized parameter of Linear (bias, weight), but got name='wieght'."),
        (nn.Linear(2, 2, bias=False), "bias", "an initialized parameter of Linear (weight), but got name='bias'."),
        (nn.ReLU(), "weight", "an initialized parameter of ReLU (it has none), but got name='weight'."),
        (nn.LazyLinear(2), "weight", "an initialized parameter of LazyLinear (it has none), but got name='weight'."),
        (
            spectral_norm(nn.Linear(2, 2)),
            "w",
            "an initialized parameter of Linear (bias, weight), but got name='w'.",
        ),
        (spectral_norm(nn.Linear(2, 2)), "weight", "a parameter without SpectralNorm, but got name='weight'."),
    ],
)
def test_rejects_what_cannot_be_normalized(layer: nn.Module, name: str, message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(f'spectral_norm: `name` must be {message}')}$"):
        spectral_norm(layer, name)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Linear(2, 2), "a spectrally normalized tensor of Linear (it has none), but got name='bias'."),
        (
            spectral_norm(nn.Linear(2, 2)),
            "a spectrally normalized tensor of Linear (weight), but got name='bias'.",
        ),
    ],
)
def test_rejects_to_report_sigmas_of_what_is_not_normalized(layer: nn.Module, message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(f'estimated_singular_values: `name` must be {message}')}$"):
        estimated_singular_values(layer, "bias")


def test_rejects_to_fold_a_model_without_spectral_norm():
    rule = r"^fold_spectral_norm: `model` must be a module with spectral norm, but got model='Sequential'\.$"
    with pytest.raises(ValueError, match=rule):
        fold_spectral_norm(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize("register", [spectral_norm, partial(clamp_sigma, maximum=1.0)])
def test_rejects_a_complex_weight(register):
    with pytest.raises(TypeError, match=r": `weight` must be of a real floating dtype, but got weight of dtype"):
        register(nn.Linear(3, 3, dtype=torch.cfloat))


@pytest.mark.parametrize("register", [spectral_norm, partial(clamp_sigma, maximum=1.0)])
def test_rejects_a_tensor_in_place_of_its_layer(register):
    with pytest.raises(TypeError, match=r": `module` must be a module, such as .*, but got module of type Tensor\.$"):
        register(torch.zeros(3, 3))


def test_rejects_numbers_of_singular_values_that_are_not_whole():
    with pytest.raises(TypeError, match=r"^SpectralNorm: `num_singular_values` must be a whole number, but got num_"):
        spectral_norm(nn.Linear(3, 3), num_singular_values=1.5)
    with pytest.raises(TypeError, match=r"^top_singular_triplets: `k` must be a whole number, but got k of type float"):
        top_singular_triplets([torch.eye(3)], k=2.5)
    with pytest.raises(TypeError, match=r"^SpectrumMonitor: `k` must be a whole number, but got k of type float"):
        SpectrumMonitor(nn.Linear(3, 3), k=2.5)


def test_rejects_numbers_of_steps_that_are_not_whole():
    with pytest.raises(TypeError, match=r"`n_power_iterations` must be a whole number, but got n_power_iter"):
        spectral_norm(nn.Linear(3, 3), n_power_iterations=1.5)
