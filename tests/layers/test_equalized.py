import copy
import math
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from gan_blocks import (
    EqualizedConv2d,
    EqualizedConvTranspose2d,
    EqualizedLearningRate,
    EqualizedLinear,
    equalized_lr,
    spectral_norm,
)
from tests.drawn import draw
from tests.reference import layers as reference

LAYERS: dict[str, Callable[..., nn.Module]] = {
    "linear": lambda **options: EqualizedLinear(6, 4, **options),
    "conv": lambda **options: EqualizedConv2d(6, 4, 3, padding=1, **options),
    "transposed": lambda **options: EqualizedConvTranspose2d(6, 4, 4, stride=2, padding=1, **options),
}
FAN_IN = {"linear": 6, "conv": 6 * 9, "transposed": 6 * 16}
every_layer = pytest.mark.parametrize("name", LAYERS)


def example(name: str) -> Tensor:
    return draw(2, 6) if name == "linear" else draw(2, 6, 4, 4)


def stored(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


@every_layer
@given(gain=st.floats(0.1, 4))
def test_computes_with_the_stored_weight_times_the_constant(name: str, gain: float):
    layer, x = LAYERS[name](gain=gain, dtype=torch.float64), example(name)
    with torch.no_grad():
        layer.bias.copy_(draw(4, seed=1))
    weight = stored(layer) * reference.equalized_scale(gain, FAN_IN[name])
    wanted = {
        "linear": lambda: F.linear(x, weight, layer.bias),
        "conv": lambda: F.conv2d(x, weight, layer.bias, padding=1),
        "transposed": lambda: F.conv_transpose2d(x, weight, layer.bias, stride=2, padding=1),
    }[name]()
    torch.testing.assert_close(layer(x), wanted)


@every_layer
def test_the_default_gain_is_the_root_of_two(name: str):
    layer = LAYERS[name]()
    torch.testing.assert_close(layer.weight, stored(layer) * math.sqrt(2 / FAN_IN[name]))


@pytest.mark.parametrize(
    "layer",
    [
        EqualizedLinear(300, 100),
        EqualizedConv2d(64, 64, 3),
        EqualizedConvTranspose2d(64, 64, 4),
        equalized_lr(nn.Conv1d(64, 64, 5)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_stored_weights_are_standard_normal(layer: nn.Module):
    values = stored(layer).detach()
    spread = values.numel() ** -0.5
    assert abs(values.mean()) < 5 * spread
    assert abs(values.std() - 1) < 5 * spread
    assert values.abs().max() > 3  # not the uniform draws of torch's layers


@every_layer
def test_biases_start_at_zero_and_can_be_left_out(name: str):
    assert not LAYERS[name]().bias.any()
    assert LAYERS[name](bias=False).bias is None


@every_layer
def test_resetting_draws_anew(name: str):
    layer = LAYERS[name]()
    before = stored(layer).clone()
    nn.init.ones_(layer.bias)
    layer.reset_parameters()
    assert not torch.equal(stored(layer), before)
    assert not layer.bias.any()
    torch.manual_seed(5)
    layer.reset_parameters()
    first = stored(layer).clone()
    torch.manual_seed(5)
    layer.reset_parameters()
    assert torch.equal(stored(layer), first)


def test_adam_moves_weights_of_all_layers_by_the_same_share_of_their_range():
    """The point of section 4.1: the step relative to the dynamic range does not depend on the fan-in."""
    shares = []
    for fan_in in (4, 400):
        layer = EqualizedLinear(fan_in, 8)
        before = layer.weight.detach().clone()
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01, betas=(0.0, 0.99))
        layer(draw(16, fan_in, dtype=torch.float32)).square().sum().backward()
        optimizer.step()
        moved = (layer.weight - before).abs() / reference.equalized_scale(math.sqrt(2), fan_in)
        shares.append(moved.mean().item())
    assert shares == pytest.approx([0.01, 0.01], rel=1e-3)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv2d(8, 4, 3, groups=2), 36),
        (nn.ConvTranspose2d(8, 4, 3, groups=2), 36),
        (nn.ConvTranspose1d(8, 4, 3), 24),
        (nn.Bilinear(2, 3, 4), 6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_fits_grouped_and_transposed_and_any_other_layer(layer: nn.Module, fan_in: int):
    equalized_lr(layer)
    torch.testing.assert_close(layer.weight, stored(layer) * math.sqrt(2 / fan_in))


def test_a_convolution_with_groups_counts_the_inputs_of_one():
    layer, x = EqualizedConv2d(8, 4, 3, groups=2, dtype=torch.float64), draw(2, 8, 5, 5)
    torch.testing.assert_close(layer(x), F.conv2d(x, stored(layer) * math.sqrt(2 / 36), groups=2))


def test_takes_another_fan_in():
    layer = equalized_lr(nn.Embedding(10, 4), fan_in=4, gain=1.0)
    assert torch.equal(layer.weight, stored(layer) / 2)


def test_spectral_norm_sees_the_scaled_weight():
    layer = spectral_norm(EqualizedLinear(6, 4), n_power_iterations=50)
    torch.testing.assert_close(torch.linalg.matrix_norm(layer.weight, 2), torch.tensor(1.0))
    raw = stored(layer)
    torch.testing.assert_close(layer.weight, raw / torch.linalg.matrix_norm(raw, 2), rtol=1e-4, atol=1e-5)


def test_assigning_the_weight_stores_what_gives_it():
    layer, wanted = EqualizedLinear(6, 4), draw(4, 6, dtype=torch.float32)
    layer.weight = wanted
    torch.testing.assert_close(layer.weight, wanted)
    torch.testing.assert_close(stored(layer), wanted / math.sqrt(2 / 6))


@every_layer
def test_gradients_agree_with_finite_differences(name: str):
    layer, x = LAYERS[name](dtype=torch.float64), example(name).requires_grad_()
    parameters = dict(layer.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, *parameters.values()), fast_mode=True)


@every_layer
def test_state_survives_a_round_trip_and_a_copy(name: str):
    source, target = LAYERS[name](dtype=torch.float64), LAYERS[name](dtype=torch.float64)
    x = example(name)
    assert set(source.state_dict()) == {"bias", "parametrizations.weight.original"}
    assert not torch.equal(source(x), target(x))
    target.load_state_dict(source.state_dict())
    assert torch.equal(source(x), target(x))
    assert torch.equal(copy.deepcopy(source)(x), source(x))


@every_layer
def test_compiles_without_a_graph_break_and_runs_on_meta(name: str):
    layer, x = LAYERS[name](dtype=torch.float64), example(name)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))
    assert LAYERS[name](device="meta")(x.to("meta", torch.float32)).shape == layer(x).shape


def test_the_weight_keeps_its_precision_under_autocast():
    layer = EqualizedLinear(6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.weight.dtype == torch.float32
        assert layer(draw(2, 6, dtype=torch.float32)).dtype == torch.bfloat16


def test_rejects_what_is_no_matrix():
    pattern = r"^equalized_lr: `name` must be a parameter of Linear with two or more dimensions, but got name='{}'\.$"
    for name in ("bias", "gain"):
        with pytest.raises(ValueError, match=pattern.format(name)):
            equalized_lr(nn.Linear(2, 2), name)


def test_rejects_a_second_parametrization():
    pattern = r"^equalized_lr: `weight` must not be parametrized already\. Equalize the learning rate first\.$"
    for layer in (EqualizedLinear(2, 2), spectral_norm(nn.Linear(2, 2))):
        with pytest.raises(RuntimeError, match=pattern):
            equalized_lr(layer)


@pytest.mark.parametrize("option", ["gain", "fan_in"])
def test_rejects_constants_that_are_not_positive(option: str):
    with pytest.raises(ValueError, match=rf"^equalized_lr: `{option}` must be greater than 0, but got {option}=0\.$"):
        equalized_lr(nn.Linear(2, 2), **{option: 0})


@pytest.mark.parametrize(
    ("owner", "build"),
    [
        ("EqualizedLearningRate: `scale`", lambda: EqualizedLearningRate(0.0)),
        ("EqualizedLinear: `gain`", lambda: EqualizedLinear(2, 2, gain=0.0)),
        ("EqualizedConv2d: `gain`", lambda: EqualizedConv2d(2, 2, 3, gain=-1.0)),
        ("EqualizedConvTranspose2d: `in_channels`", lambda: EqualizedConvTranspose2d(0, 2, 3)),
    ],
)
def test_layers_name_themselves_in_errors(owner: str, build: Callable[[], nn.Module]):
    with pytest.raises(ValueError, match=rf"^{re.escape(owner)} must be greater than 0, but got \w+=[-.01]+\.$"):
        build()


def test_a_layer_that_was_equalized_draws_its_stored_weight_again():
    layer = copy.deepcopy(equalized_lr(nn.Conv2d(3, 64, 3)))
    with torch.no_grad():
        layer.parametrizations.weight.original.fill_(77.0)
        layer.bias.fill_(77.0)
    layer.reset_parameters()
    assert abs(layer.parametrizations.weight.original.std().item() - 1) < 0.1
    assert layer.bias.abs().max() < 1


def test_a_layer_whose_scale_was_folded_in_draws_its_weight_as_torch_does():
    layer = equalized_lr(nn.Conv1d(3, 64, 3))
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    torch.manual_seed(0)
    layer.reset_parameters()
    torch.manual_seed(0)
    assert torch.equal(layer.weight, nn.Conv1d(3, 64, 3).weight)


def test_a_network_that_is_built_anew_can_lose_its_scales_without_the_original():
    layer, other = EqualizedConv2d(3, 4, 3), EqualizedConv2d(3, 4, 3)
    other.load_state_dict(layer.state_dict())
    nn.utils.parametrize.remove_parametrizations(other, "weight")
    assert torch.equal(other.weight, layer.weight)


@pytest.mark.parametrize(
    ("make", "owner", "name"),
    [
        (lambda: EqualizedConv2d(3, 0, 3), "EqualizedConv2d", "out_channels"),
        (lambda: EqualizedConvTranspose2d(3, 0, 3), "EqualizedConvTranspose2d", "out_channels"),
        (lambda: EqualizedLinear(3, 0), "EqualizedLinear", "out_features"),
    ],
)
def test_a_layer_without_outputs_is_refused(make: Callable[[], object], owner: str, name: str):
    with pytest.raises(ValueError, match=rf"^{owner}: `{name}` must be greater than 0, but got {name}=0\.$"):
        make()
