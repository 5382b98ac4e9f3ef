from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gan_blocks import ResidualGeneratorBlock, normalized_layer
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.failed_layer import naming_failed_construction, naming_failed_layer


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), normalized_layer(nn.Linear)(9, 3))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.layers(z) + labels


class Adding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        wider = torch.cat([x, x], dim=1)
        return x + wider


def problem_of(network: nn.Module, *inputs: Tensor) -> str:
    with pytest.raises(UserError) as error, naming_failed_layer({"the generator": network}):
        network(*inputs)
    return str(error.value)


def test_the_innermost_layer_is_named_with_what_it_was_given():
    said = problem_of(Own(), torch.zeros(2, 6), torch.zeros(2, 3))
    assert said.startswith(
        "the generator fails in layers.2 (Linear), given (2, 8): mat1 and mat2 shapes cannot be mult"
    )


def test_of_layers_that_somebody_wrote_the_line_is_named_too():
    said = problem_of(nn.Sequential(nn.Identity(), Adding()), torch.zeros(2, 3))
    line = Adding.forward.__code__.co_firstlineno + 2
    assert said.startswith(
        f"the generator fails in 1 (Adding), line {line} of {__file__}, given (2, 3): The size of ten"
    )


@pytest.mark.parametrize(
    ("network", "inputs", "expected"),
    [
        (Own(), [torch.zeros(2, 6)], "the generator fails in Own, given (2, 6): Own.forward() missing 1 required pos"),
        (
            nn.Embedding(3, 2),
            [torch.tensor([5])],
            "the generator fails in Embedding, given (1,): index out of range in",
        ),
        (
            ResidualGeneratorBlock(4, 4),
            [torch.zeros(1, 3, 8, 8)],
            "the generator fails in ResidualGeneratorBlock, given",
        ),
    ],
)
def test_calls_labels_and_blocks_that_do_not_fit(network: nn.Module, inputs: list[Tensor], expected: str):
    assert problem_of(network, *inputs).startswith(expected)


def test_errors_of_other_code_and_of_other_networks_stay_what_they_are():
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(ValueError, match="elsewhere"), naming_failed_layer({"the generator": network}):
        raise ValueError("elsewhere")
    with pytest.raises(RuntimeError, match="mat1"), naming_failed_layer({"the generator": network}):
        other(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: ResidualGeneratorBlock(0, 4), "ResidualGeneratorBlock"),
        (lambda: nn.Linear(-1, 4), "negative"),
    ],
)
def test_what_a_part_refuses_while_a_network_is_built_is_one_line(build: Callable[[], nn.Module], problem: str):
    with pytest.raises(UserError) as error, naming_failed_construction("the generator"):
        build()
    assert str(error.value).startswith("the generator cannot be built with these options: ")
    assert problem in str(error.value)


def test_an_error_of_the_networks_own_code_while_it_is_built_is_left_alone():
    with pytest.raises(ValueError, match="mine"), naming_failed_construction("the generator"):
        raise ValueError("mine")
