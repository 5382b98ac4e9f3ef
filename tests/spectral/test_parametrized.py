import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from gan_blocks.spectral.parametrized import chain_input, chains_of, sources_of


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


def test_the_input_of_a_parametrization_is_the_output_of_those_before_it():
    scaled = chain(Scale(), Scale())
    assert chain_input(scaled, 0) is scaled.original
    assert torch.equal(chain_input(scaled, 1), 2 * scaled.original)
    assert torch.equal(chain_input(scaled, 2), 4 * scaled.original)


def test_a_weight_made_of_several_tensors_is_read_as_what_is_made_of_them():
    product = chain(Product())
    torch.testing.assert_close(chain_input(product, 1), product.original0 @ product.original1)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_weight_is_made_from_its_original_and_the_parameters_of_earlier_parametrizations(index: int):
    scaled = chain(Scale(), Scale())
    expected = [scaled.original, scaled[0].factor, scaled[1].factor][: index + 1]
    assert [id(source) for source in sources_of(scaled, index)] == [id(source) for source in expected]


def test_a_plain_layer_has_no_chains():
    assert chains_of(nn.Linear(2, 2)) == {}
