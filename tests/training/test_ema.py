import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import ExponentialMovingAverage, spectral_norm
from tests.reference import training as reference


class Model(nn.Module):
    """Parameters, floating and integer buffers, and a spectral norm."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear = spectral_norm(nn.Linear(width, 3))
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


def make_model(seed: int = 0) -> nn.Module:
    model = Model().double()
    change(model, seed)
    return model


@torch.no_grad()
def change(model: nn.Module, seed: int) -> None:
    """What a training step does to a model, at random."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator))
    model(torch.randn(5, 4, dtype=torch.float64, generator=generator))


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


U, V = (f"linear.parametrizations.weight.0.{name}" for name in "uv")
COUNT = "norm.num_batches_tracked"


@given(decays=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_floating_tensors_equal_the_weighted_sum_over_the_history(decays: list[float], seed: int):
    model = make_model(seed)
    average = ExponentialMovingAverage(model)
    history = [tensors(model)]
    for step, decay in enumerate(decays):
        change(model, seed + step + 1)
        average.update(model, decay=decay)
        history.append(tensors(model))
    for name, value in average.module.state_dict().items():
        if name in (U, V, COUNT):
            continue
        expected = reference.exponential_moving_average([state[name].flatten().tolist() for state in history], decays)
        assert value.flatten().tolist() == pytest.approx(expected, abs=1e-12), name


def test_the_constructors_decay_is_the_default():
    model = make_model()
    average, explicit = ExponentialMovingAverage(model, decay=0.7), ExponentialMovingAverage(model)
    change(model, 1)
    average.update(model)
    explicit.update(model, decay=0.7)
    assert all(torch.equal(value, tensors(explicit.module)[name]) for name, value in tensors(average.module).items())


def test_integer_buffers_are_copied():
    model = make_model()
    average = ExponentialMovingAverage(model)
    for step in range(3):
        change(model, step)
    average.update(model)
    assert average.module.norm.num_batches_tracked.item() == model.norm.num_batches_tracked.item() == 4


def test_a_decay_of_0_copies_everything_exactly():
    model = make_model()
    average = ExponentialMovingAverage(model)
    for step in range(3):
        change(model, step)
        average.update(model, decay=0.5)
    average.update(model, decay=0.0)
    state = tensors(model)
    assert state.keys() == tensors(average.module).keys() >= {U, V, COUNT}
    assert all(torch.equal(value, state[name]) for name, value in tensors(average.module).items())


def test_a_decay_of_1_keeps_everything_exactly():
    model = make_model()
    average = ExponentialMovingAverage(model)
    before = tensors(average.module)
    change(model, 1)
    average.update(model, decay=1.0)
    assert all(torch.equal(value, before[name]) for name, value in tensors(average.module).items())


def test_singular_vectors_advance_once_per_update_on_the_averaged_weight():
    model = make_model()
    average = ExponentialMovingAverage(model)
    u = average.module.state_dict()[U][0]
    for step in range(3):
        change(model, step)
        before = u.clone()
        average.update(model, decay=0.6)
        weight = average.module.linear.parametrizations.weight.original
        v = nn.functional.normalize(weight.T @ before, dim=0)
        torch.testing.assert_close(average.module.state_dict()[V][0], v)
        torch.testing.assert_close(u, nn.functional.normalize(weight @ v, dim=0))


def test_the_averaged_weight_stays_normalized_by_its_own_largest_singular_value():
    model = make_model()
    average = ExponentialMovingAverage(model)
    for step in range(60):
        change(model, step)
        average.update(model, decay=0.97)
    sigma = torch.linalg.matrix_norm(average.module.linear.weight, 2).item()
    assert sigma == pytest.approx(1, abs=1e-3)


def test_the_model_is_left_alone():
    model = make_model()
    model(torch.ones(2, 4, dtype=torch.float64)).sum().backward()
    before = copy.deepcopy(tensors(model))
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    average = ExponentialMovingAverage(model)
    average.update(model, decay=0.5)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in tensors(model).items())


def test_the_average_is_in_eval_mode_and_has_no_gradients():
    model = make_model()
    model(torch.ones(2, 4, dtype=torch.float64)).sum().backward()
    average = ExponentialMovingAverage(model)
    average.update(model)
    assert not any(module.training for module in average.module.modules())
    assert not any(p.requires_grad or p.grad is not None for p in average.module.parameters())


def test_a_resumed_average_continues_bit_for_bit():
    model = make_model()
    average = ExponentialMovingAverage(model, decay=0.9)
    for step in range(3):
        change(model, step)
        average.update(model)
    resumed = ExponentialMovingAverage(make_model(seed=7), decay=0.9)
    resumed.module.load_state_dict(tensors(average.module))
    for step in range(3, 6):
        change(model, step)
        average.update(model)
        resumed.update(model)
    assert all(torch.equal(value, tensors(resumed.module)[name]) for name, value in tensors(average.module).items())


def test_float32_averages_stall_where_the_docstring_says():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    average = ExponentialMovingAverage(model, decay=0.9999)
    for distance, moves in ((2.5e-4, False), (6.5e-4, True)):
        nn.init.constant_(model.weight, 1 + distance)
        average.update(model)
        assert (average.module.weight.item() != 1) == moves
        nn.init.ones_(average.module.weight)


def test_a_model_of_another_precision_is_averaged_in_that_of_the_average():
    model = nn.Linear(2, 2)
    average = ExponentialMovingAverage(model, decay=0.5)
    before = average.module.weight.clone()
    average.update(copy.deepcopy(model).double())
    assert average.module.weight.dtype == torch.float32
    torch.testing.assert_close(average.module.weight, before)


def test_follows_models_without_tensors_of_some_kind():
    ExponentialMovingAverage(nn.ReLU()).update(nn.ReLU())
    average = ExponentialMovingAverage(nn.Linear(1, 1))
    average.update(nn.Linear(1, 1), decay=0.5)


def test_works_on_the_meta_device():
    model = nn.Linear(2, 2, device="meta")
    ExponentialMovingAverage(model).update(model)


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_rejects_decays_outside_the_unit_interval(decay: float):
    pattern = rf"^ExponentialMovingAverage: `decay` must be from 0 to 1, but got decay={decay}\.$"
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=pattern):
        ExponentialMovingAverage(model, decay=decay)
    with pytest.raises(ValueError, match=pattern):
        ExponentialMovingAverage(model).update(model, decay=decay)


def test_rejects_another_shape_and_names_it():
    pattern = (
        r"^ExponentialMovingAverage: `model` must have bias of shape \(3,\), as the average, "
        r"but has bias of shape \(2,\)\.$"
    )
    average, other = ExponentialMovingAverage(nn.Linear(4, 3)), nn.Linear(4, 3)
    other.bias = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match=pattern):
        average.update(other)


def test_rejects_missing_and_unknown_tensors_and_names_the_first():
    with_bias, without = nn.Linear(4, 3), nn.Linear(4, 3, bias=False)
    pattern = r"^ExponentialMovingAverage: `model` must have bias of shape \(3,\), as the average, but has no bias\.$"
    with pytest.raises(ValueError, match=pattern):
        ExponentialMovingAverage(with_bias).update(without)
    pattern = r"^ExponentialMovingAverage: `model` must have no bias, as the average, but has bias of shape \(3,\)\.$"
    with pytest.raises(ValueError, match=pattern):
        ExponentialMovingAverage(without).update(with_bias)


def test_its_state_is_that_of_the_copy_and_comes_back_bit_for_bit():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    average, other = ExponentialMovingAverage(model, 0.5), ExponentialMovingAverage(copy.deepcopy(model), 0.9)
    with torch.no_grad():
        model[0].weight.add_(1)
    average.update(model)
    assert average.state_dict().keys() == model.state_dict().keys()
    other.load_state_dict(average.state_dict())
    assert all(torch.equal(value, average.state_dict()[name]) for name, value in other.state_dict().items())
    other.update(model, decay=0.5)
    average.update(model)
    assert torch.equal(other.module[0].weight, average.module[0].weight)
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})


@pytest.mark.parametrize(
    "normalize", [torch.nn.utils.parametrizations.spectral_norm, torch.nn.utils.spectral_norm], ids=["new", "hook"]
)
def test_the_average_of_a_model_with_torchs_spectral_norm_stays_normalized(normalize, rng: torch.Generator):
    model = normalize(nn.Linear(32, 32, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    average = ExponentialMovingAverage(model, decay=0.9)
    x, target = torch.randn(16, 32, generator=rng), 3 * torch.randn(16, 32, generator=rng)
    for _ in range(60):
        optimizer.zero_grad()
        (model(x) - target).square().mean().backward()
        optimizer.step()
        average.update(model)
    gain = torch.linalg.matrix_norm(average.module(torch.eye(32)), 2)
    assert 0.95 < gain < 1.6
    theirs = [tensor for name, tensor in model.named_buffers() if name.endswith(("u", "v"))]
    ours = [tensor for name, tensor in average.module.named_buffers() if name.endswith(("u", "v"))]
    assert len(theirs) == 2
    # Reading the average in eval mode moves nothing of it.
    assert all(torch.equal(*both) for both in zip(ours, theirs, strict=True))


def test_complex_tensors_are_averaged():
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(1, dtype=torch.complex64))
    model.register_buffer("phase", torch.zeros(1, dtype=torch.complex64))
    average = ExponentialMovingAverage(model, decay=0.9)
    with torch.no_grad():
        model.weight.fill_(1 + 0j)
        model.phase.fill_(2j)
    average.update(model)
    torch.testing.assert_close(average.module.weight.detach(), torch.tensor([0.1 + 0j]))
    torch.testing.assert_close(average.module.phase, torch.tensor([0.2j]))


def test_buffers_that_a_module_names_are_copied():
    class Direction(nn.Module):
        copied_buffers = ("unit",)

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("unit", torch.tensor([1.0, 0.0]))
            self.register_buffer("mean", torch.tensor([0.0, 0.0]))

    model = Direction()
    average = ExponentialMovingAverage(model, decay=0.5)
    model.unit.copy_(torch.tensor([0.0, 1.0]))
    model.mean.fill_(1.0)
    average.update(model)
    assert average.module.unit.tolist() == [0.0, 1.0]
    assert average.module.mean.tolist() == [0.5, 0.5]


def test_the_first_of_several_tensors_that_differ_is_named():
    pattern = r"must have 0\.weight of shape \(3, 4\)"
    first, second = (nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2)) for width in (3, 5))
    with pytest.raises(ValueError, match=pattern):
        ExponentialMovingAverage(first).update(second)


def test_the_average_is_called_like_its_model():
    average = ExponentialMovingAverage(nn.Bilinear(2, 3, 1))
    x, y = torch.ones(4, 2), torch.ones(4, 3)
    torch.testing.assert_close(average(x, input2=y), average.module(x, y), rtol=0, atol=0)


def test_a_module_under_two_names_is_averaged_once():
    model = nn.Sequential(nn.Linear(2, 2))
    model.again, model.nothing = model[0], None
    average = ExponentialMovingAverage(model, decay=0.5)
    with torch.no_grad():
        model[0].weight.add_(2)
    average.update(model)
    torch.testing.assert_close(average.module[0].weight, model[0].weight - 1)


def test_rejects_parameters_in_place_of_a_model():
    pattern = r"^ExponentialMovingAverage: `model` must be a module, .* but got model of type generator\.$"
    with pytest.raises(TypeError, match=pattern):
        ExponentialMovingAverage(nn.Linear(3, 1).parameters())
