"""One training step of a tiny recipe of BigGAN's family, with what it started from."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.recipe.batches import BatchSource, PairBatch
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.state import TrainingState
from tests.engine.kept_gradients import keep_gradients, kept_gradients


@dataclass
class Step:
    """A training step in float64 and what it started from. The gradients of both networks are those of the step."""

    before: TrainingState
    state: TrainingState
    part: PairBatch
    logged: dict[str, Tensor]

    def gradients(self, network: str) -> dict[str, Tensor]:
        return kept_gradients(getattr(self.state, network))


def take_step(recipe: Recipe[Any], config: Any, *, step: int = 1, accumulate: int = 1) -> Step:
    options = RunOptions(precision="fp64", device="cpu", accumulate=accumulate)
    images = load_images(config.data, resolution=16, channels=1, num_classes=3)
    source = BatchSource(images, recipe.build_prior(config), config, options)
    state = build_state(recipe, config, options)
    for network in (state.generator, state.discriminator):  # orthogonal weights would hide a wrong penalty
        rng = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64), alpha=0.1)
    before = copy.deepcopy(state)
    keep_gradients(state)
    batches = source.step(step)
    whole = BatchSource(images, recipe.build_prior(config), config, replace(options, accumulate=1)).step(step)
    part = next(whole.discriminator(0))
    return Step(before, state, part, recipe.train_step(state, batches, config))


def gradients_of(network: nn.Module, term: Callable[[], Tensor]) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(term(), parameters, allow_unused=True)
    return {name: value for name, value in zip(names, found, strict=True) if value is not None}


def assert_differ_by(with_term: dict[str, Tensor], plain: dict[str, Tensor], term: dict[str, Tensor]) -> None:
    assert any(value.abs().max() > 1e-6 for value in term.values())
    for name, gradient in with_term.items():
        expected = plain[name] + term.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=1e-9)


def raw_weights(network: nn.Module) -> list[Tensor]:
    """What the optimizer moves of every weight but the class embedding of G."""
    named = network.named_parameters()
    return [value for name, value in named if value.dim() > 1 and name != "embedding.weight"]


def off_diagonal(weights: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for weight in weights:
        product = weight.flatten(1) @ weight.flatten(1).T
        total = total + (product * (1 - torch.eye(len(product)))).square().sum()
    return total


def assert_penalizes(
    recipe: Recipe[Any], plain: Any, changed: Any, network: str, term: Callable[[nn.Module], Tensor], accumulate: int
) -> None:
    """What ``changed`` adds to the gradients of a network is a term of its weights, which is logged beside the loss."""
    without, with_term = (take_step(recipe, config, accumulate=accumulate) for config in (plain, changed))
    start = getattr(without.before, network)
    start.requires_grad_(True)
    assert_differ_by(with_term.gradients(network), without.gradients(network), gradients_of(start, lambda: term(start)))
    (name,) = with_term.logged.keys() - without.logged.keys()
    assert "penalty" in name
    torch.testing.assert_close(with_term.logged[name], term(start).detach().double(), atol=1e-10, rtol=1e-9)
    assert torch.equal(with_term.logged[f"loss_{network[0]}"], without.logged[f"loss_{network[0]}"])
