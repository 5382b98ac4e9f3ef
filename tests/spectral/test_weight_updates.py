import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from gan_blocks.spectral.weight_updates import chain_input, chains_of, count_fused_updates, weight_state


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight


class Product(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left @ right

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight, torch.eye(weight.shape[1])


def chain(*parametrizations: nn.Module) -> ParametrizationList:
    layer = nn.Linear(3, 2)
    for parametrization in parametrizations:
        register_parametrization(layer, "weight", parametrization)
    return chains_of(layer)["weight"]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad])
def test_every_optimizer_step_changes_the_state(optimizer_type: type[torch.optim.Optimizer], fused: bool):
    count_fused_updates()
    scaled = chain(Scale())
    optimizer = optimizer_type(scaled.parameters(), lr=0.1, fused=fused)
    states = [weight_state(scaled, 0)]
    for _ in range(2):
        optimizer.zero_grad()
        scaled().sum().backward()
        optimizer.step()
        states.append(weight_state(scaled, 0))
    assert len(set(states)) == 3


def test_a_fused_optimizer_leaves_the_state_of_what_had_no_gradient():
    count_fused_updates()
    first, second = chain(Scale()), chain(Scale())
    optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], fused=True)
    before = weight_state(second, 0)
    first().sum().backward()
    optimizer.step()
    assert weight_state(second, 0) == before


def test_reading_leaves_the_state():
    scaled = chain(Scale())
    before = weight_state(scaled, 1)
    scaled().sum().backward()
    assert weight_state(scaled, 1) == before


def test_parameters_of_earlier_parametrizations_belong_to_the_state_and_later_ones_do_not():
    scaled = chain(Scale(), Scale())
    before = [weight_state(scaled, index) for index in range(3)]
    with torch.no_grad():
        scaled[1].factor.mul_(2)
    assert [weight_state(scaled, index) == before[index] for index in range(3)] == [True, True, False]


def test_the_input_of_a_parametrization_is_the_output_of_those_before_it():
    scaled = chain(Scale(), Scale())
    assert chain_input(scaled, 0) is scaled.original
    assert torch.equal(chain_input(scaled, 1), 2 * scaled.original)
    assert torch.equal(chain_input(scaled, 2), 4 * scaled.original)


def test_a_weight_made_of_several_tensors_has_one_number_for_each():
    product = chain(Product())
    assert len(weight_state(product, 1)) == 2
    torch.testing.assert_close(chain_input(product, 1), product.original0 @ product.original1)


def test_tensors_made_in_inference_mode_have_a_constant_state():
    with torch.inference_mode():
        scaled = chain(Scale())
        before = weight_state(scaled, 0)
        scaled.original.mul_(2)
        assert weight_state(scaled, 0) == before


def test_a_plain_layer_has_no_chains():
    assert chains_of(nn.Linear(2, 2)) == {}
