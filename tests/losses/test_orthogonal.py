import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from torch.utils._python_dispatch import TorchDispatchMode

from gan_blocks import (
    init_orthogonal_,
    off_diagonal_penalty,
    orthogonal_penalty,
    orthogonal_regularization,
    spectral_norm,
)
from tests.reference import losses as reference

Penalty = Callable[[Tensor], Tensor]
sizes = st.integers(1, 6)
each_penalty = pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (orthogonal_penalty, reference.orthogonal_penalty),
        (off_diagonal_penalty, reference.off_diagonal_penalty),
    ],
)


def as_the_paper_writes_it(penalty: Penalty, weight: Tensor) -> Tensor:
    """Equations 2 and 3 with the whole product of the filters, for autograd."""
    matrix = weight.flatten(1)
    product, identity = matrix @ matrix.T, torch.eye(len(matrix), dtype=matrix.dtype)
    return ((product - identity) if penalty is orthogonal_penalty else product * (1 - identity)).square().sum()


def gradient(penalty: Penalty, weight: Tensor) -> Tensor:
    weight = weight.detach().requires_grad_()
    return torch.autograd.grad(penalty(weight), weight)[0]


def random_weight(*shape: int, rng: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=rng, dtype=dtype, requires_grad=True)


# --- the value ---


@each_penalty
@given(out=sizes, rest=sizes, seed=st.integers(0, 99))
def test_the_value_is_that_of_the_equation(penalty, expected, out: int, rest: int, seed: int):
    weight = random_weight(out, rest, rng=torch.Generator().manual_seed(seed))
    assert penalty(weight).item() == pytest.approx(expected(weight.tolist()), rel=1e-10, abs=1e-10)


@each_penalty
def test_all_dimensions_but_the_first_make_a_filter(penalty, expected, rng: torch.Generator):
    weight = random_weight(3, 2, 3, 2, rng=rng)
    assert penalty(weight).item() == pytest.approx(expected(weight.flatten(1).tolist()), rel=1e-10)
    for memory in (weight.detach().contiguous(memory_format=torch.channels_last), weight.detach().clone()):
        torch.testing.assert_close(penalty(memory), penalty(weight).detach())
        torch.testing.assert_close(gradient(penalty, memory), gradient(penalty, weight))


@given(out=sizes, extra=st.integers(0, 4), gain=st.floats(0.1, 3), seed=st.integers(0, 99))
def test_filters_at_right_angles_cost_nothing_in_equation_3_and_their_length_in_equation_2(
    out: int, extra: int, gain: float, seed: int
):
    layer = nn.Linear(out + extra, out, dtype=torch.float64)
    weight = init_orthogonal_(layer, gain=gain, generator=torch.Generator().manual_seed(seed)).weight
    assert off_diagonal_penalty(weight).item() == pytest.approx(0, abs=1e-9)
    assert orthogonal_penalty(weight).item() == pytest.approx(out * (gain**2 - 1) ** 2, abs=1e-9)


# --- its gradient ---


@each_penalty
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 3), (3, 1), (6, 2, 3, 3), (40, 2, 2, 2)])
def test_the_closed_form_equals_autograd_of_the_equation(
    penalty, expected, dtype: torch.dtype, tolerance: float, shape: tuple[int, ...], rng: torch.Generator
):
    weight = random_weight(*shape, rng=rng, dtype=dtype)
    autograd = torch.autograd.grad(as_the_paper_writes_it(penalty, weight.double()), weight)[0]
    scale = autograd.abs().max().item() + 1
    closed = gradient(penalty, weight)
    assert closed.dtype == dtype
    assert (closed - autograd).abs().max().item() <= tolerance * scale


@each_penalty
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 2, 2)])
def test_gradients_agree_with_finite_differences_twice(penalty, expected, shape: tuple[int, ...], rng: torch.Generator):
    weight = random_weight(*shape, rng=rng)
    assert torch.autograd.gradcheck(penalty, weight)
    assert torch.autograd.gradgradcheck(penalty, weight)


@each_penalty
def test_a_coefficient_scales_the_gradient(penalty, expected, rng: torch.Generator):
    weight = random_weight(5, 3, rng=rng)
    (1e-4 * penalty(weight)).backward()
    torch.testing.assert_close(weight.grad, 1e-4 * gradient(penalty, weight), atol=1e-15, rtol=0)


def test_descending_equation_3_turns_filters_apart_and_leaves_their_length_free(rng: torch.Generator):
    layer = nn.Linear(6, 4, dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.02)
    with torch.no_grad():
        layer.weight.copy_(random_weight(4, 6, rng=rng))
    for _ in range(400):
        optimizer.zero_grad()
        off_diagonal_penalty(layer.weight).backward()
        optimizer.step()
    products = layer.weight.detach() @ layer.weight.detach().T
    assert (products - products.diag().diag()).abs().max() < 1e-3
    assert (products.diag() - 1).abs().max() > 0.3


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@each_penalty
def test_no_product_of_the_long_side_with_itself_is_formed(penalty, expected):
    for shape in [(24_576, 20), (20, 24_576)]:
        weight = torch.full(shape, 0.01, requires_grad=True)
        with LargestTensor() as largest:
            penalty(weight).backward()
        assert largest.elements == 24_576 * 20


@each_penalty
def test_a_narrow_weight_is_computed_in_float32_also_under_autocast(penalty, expected, rng: torch.Generator):
    narrow = random_weight(12, 16, rng=rng, dtype=torch.bfloat16)
    wide = narrow.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = penalty(narrow)
        value.backward()
    penalty(wide).backward()
    assert torch.equal(value, penalty(wide))
    assert torch.equal(narrow.grad, wide.grad.bfloat16())


@each_penalty
def test_it_runs_on_the_meta_device(penalty, expected):
    assert penalty(torch.ones(3, 4, device="meta")).shape == ()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # what torch does itself
def test_it_compiles_as_one_graph(rng: torch.Generator):
    weight = random_weight(5, 3, rng=rng)
    compiled = torch.compile(off_diagonal_penalty, fullgraph=True, backend="eager")
    value = compiled(weight)
    torch.testing.assert_close(value, off_diagonal_penalty(weight))
    torch.testing.assert_close(torch.autograd.grad(value, weight)[0], gradient(off_diagonal_penalty, weight))


# --- over a model ---


def model_of(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).double()


def total(*weights: Tensor) -> float:
    return sum(reference.off_diagonal_penalty(weight.flatten(1).tolist()) for weight in weights)


def test_it_sums_over_weights_and_leaves_out_biases_gains_and_excluded_modules():
    model = model_of(nn.Embedding(5, 3), nn.Linear(3, 4), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    expected = total(model[1].weight, model[3].weight)
    assert orthogonal_regularization(model, exclude=[model[0]]).item() == pytest.approx(expected, rel=1e-10)
    assert orthogonal_regularization(model).item() == pytest.approx(expected + total(model[0].weight), rel=1e-10)


def test_the_penalty_of_each_weight_can_be_chosen():
    model = model_of(nn.Linear(3, 4))
    expected = reference.orthogonal_penalty(model[0].weight.tolist())
    assert orthogonal_regularization(model, penalty=orthogonal_penalty).item() == pytest.approx(expected, rel=1e-10)


def test_a_tensor_of_biases_is_no_weight():
    model = model_of(nn.Linear(3, 4))
    expected = orthogonal_regularization(model).item()
    model.register_parameter("class_bias", nn.Parameter(torch.ones(5, 4, dtype=torch.float64)))
    assert orthogonal_regularization(model).item() == expected


def test_an_excluded_module_leaves_out_all_inside_it():
    model = model_of(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)), nn.Linear(3, 2))
    expected = total(model[1].weight)
    assert orthogonal_regularization(model, exclude=iter([model[0]])).item() == pytest.approx(expected, rel=1e-10)


def test_filters_of_a_transposed_convolution_are_its_output_channels():
    model = model_of(nn.ConvTranspose2d(2, 3, 2))
    expected = total(model[0].weight.transpose(0, 1))
    assert orthogonal_regularization(model).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("make", [nn.Conv2d, nn.ConvTranspose2d])
def test_filters_of_different_groups_see_different_channels(make: type[nn.Module]):
    """Written out as one convolution of all channels, the filters of a group are zero where others look."""
    model = model_of(make(4, 6, 1, groups=2))
    dense = torch.zeros(6, 4, dtype=torch.float64)
    for group, part in enumerate(model[0].weight.detach().chunk(2)):
        filters = part[..., 0, 0].T if make is nn.ConvTranspose2d else part[..., 0, 0]
        dense[3 * group : 3 * group + 3, 2 * group : 2 * group + 2] = filters
    assert orthogonal_regularization(model).item() == pytest.approx(total(dense), rel=1e-10)


def test_a_parametrized_buffer_is_no_weight():
    layer = nn.Linear(3, 4)
    layer.register_buffer("other", torch.ones(2, 2))
    register_parametrization(layer, "other", nn.Tanh())
    model = model_of(layer)
    assert orthogonal_regularization(model).item() == pytest.approx(total(layer.weight), rel=1e-10)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # what torch does itself
def test_the_sum_over_a_model_compiles_as_one_graph():
    model = model_of(nn.Linear(3, 4), nn.Linear(4, 3))
    compiled = torch.compile(lambda: orthogonal_regularization(model), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(), orthogonal_regularization(model))


def test_a_shared_weight_counts_once_and_not_at_all_when_one_that_has_it_is_excluded():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = model_of(first, second, nn.Linear(3, 2))
    other = total(model[2].weight)
    assert orthogonal_regularization(model).item() == pytest.approx(other + total(first.weight), rel=1e-10)
    assert orthogonal_regularization(model, exclude=[second]).item() == pytest.approx(other, rel=1e-10)


def test_a_spectrally_normalized_weight_counts_as_the_optimizer_sees_it():
    plain = model_of(nn.Linear(3, 4), nn.Embedding(4, 5))
    normalized = copy.deepcopy(plain)
    for layer in normalized:
        spectral_norm(layer)
    before = copy.deepcopy(normalized.state_dict())
    expected, value = orthogonal_regularization(plain), orthogonal_regularization(normalized)
    assert torch.equal(value, expected)
    value.backward()
    expected.backward()
    assert torch.equal(normalized[0].parametrizations.weight.original.grad, plain[0].weight.grad)
    assert all(torch.equal(before[key], entry) for key, entry in normalized.state_dict().items())


def test_a_weight_made_of_several_tensors_counts_as_its_layer_uses_it():
    model = model_of(nn.Linear(3, 4))
    expected = total(model[0].weight)
    nn.utils.parametrizations.weight_norm(model[0])
    assert orthogonal_regularization(model).item() == pytest.approx(expected, rel=1e-10)


# --- errors ---


@pytest.mark.parametrize("function", [orthogonal_penalty, off_diagonal_penalty])
def test_rejects_a_weight_that_is_no_matrix(function: Penalty):
    message = rf"^{function.__name__}: `weight` must be of shape \(out, in, \.\.\.\), but got weight of shape \(3,\)\.$"
    with pytest.raises(ValueError, match=message):
        function(torch.ones(3))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_weights_of_both_weight_norms_count_as_their_layers_use_them():
    sums = []
    for normalize in (torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm):
        torch.manual_seed(0)
        layer = normalize(nn.Linear(3, 4)).double()
        with torch.no_grad():  # the older one's layer.weight is of the last forward pass
            for parameter in layer.parameters():
                parameter.mul_(1.5)
        value = orthogonal_regularization(layer)
        value.backward()
        sums.append((value.item(), [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]))
        layer(torch.zeros(1, 3).double())
        assert value.item() == pytest.approx(off_diagonal_penalty(layer.weight).item(), rel=1e-10)
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-10)
    assert len(sums[0][1]) == len(sums[1][1]) == 2


@pytest.mark.parametrize("penalty", [orthogonal_penalty, off_diagonal_penalty])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_functional_transforms_see_the_penalties(penalty, shape: tuple[int, int], rng: torch.Generator):
    weights = torch.randn(2, *shape, dtype=torch.float64, generator=rng)
    given = torch.func.vmap(torch.func.grad(penalty))(weights)
    for weight, gradient in zip(weights, given, strict=True):
        own = weight.clone().requires_grad_()
        torch.testing.assert_close(gradient, torch.autograd.grad(penalty(own), own)[0])


def test_rejects_tensors_that_are_no_parameters_of_the_model():
    model = nn.Sequential(spectral_norm(nn.Embedding(3, 2)), nn.Linear(2, 2))
    for stranger in (model[0].weight, torch.zeros(3, 3)):
        with pytest.raises(
            ValueError, match=r"^orthogonal_regularization: `exclude` must be parameters of the model, "
        ):
            orthogonal_regularization(model, exclude=[stranger])
    for single in (model[1], model[1].weight):
        with pytest.raises(
            TypeError, match=r"`exclude` must be a list of modules and parameters, but got exclude of ty"
        ):
            orthogonal_regularization(model, exclude=single)


def test_rejects_an_excluded_module_that_is_not_inside():
    message = r"^orthogonal_regularization: `exclude` must be modules inside the model, but got exclude='Embedding'\.$"
    with pytest.raises(ValueError, match=message):
        orthogonal_regularization(nn.Linear(2, 2), exclude=[nn.Embedding(2, 2)])


def test_rejects_a_model_without_weights():
    message = (
        r"^orthogonal_regularization: `model` must be a module with weights that are not excluded, "
        r"but got model='BatchNorm2d'\.$"
    )
    with pytest.raises(ValueError, match=message):
        orthogonal_regularization(nn.BatchNorm2d(3))


def test_parameters_may_be_excluded_and_all_else_of_their_module_counts():
    model = spectral_norm(nn.Linear(3, 4))
    model.table = nn.Parameter(torch.ones(5, 2))
    both = orthogonal_regularization(model)
    alone = orthogonal_regularization(model, exclude=[model.table])
    torch.testing.assert_close(both - alone, off_diagonal_penalty(model.table))
    original = model.get_parameter("parametrizations.weight.original")
    torch.testing.assert_close(orthogonal_regularization(model, exclude=[original]), off_diagonal_penalty(model.table))


def test_rejects_a_complex_weight():
    with pytest.raises(TypeError, match=r"^orthogonal_penalty: `weight` must be of a real floating dtype, but got"):
        orthogonal_penalty(torch.randn(3, 3, dtype=torch.cfloat))
