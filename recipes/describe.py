"""Describe the networks of a recipe and preset: layers, output shapes, parameters, multiply-adds, memory of a step.

Nothing is trained, loaded or allocated: the networks are built on torch's meta device. For example

    python -m recipes.describe biggan_deep --preset imagenet-128
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import tyro
from torch import Tensor, nn

from gan_blocks import SharedEmbedding
from recipes._engine.command_line import parse_options, run_command
from recipes._engine.dry_run import WithoutInitialization
from recipes._engine.layer_table import LayerRow, format_table, layer_table
from recipes._engine.recipe import Recipe, RecipeConfig, choose_preset, load_recipe
from recipes._engine.step_costs import StepCosts, step_costs

__all__ = ["Options", "describe", "describe_step", "main", "table_1_parameters"]


@dataclass(frozen=True)
class Options:
    """What to describe."""

    recipe: tyro.conf.Positional[str]
    """Name of a training recipe, such as biggan_deep."""

    preset: str | None = None
    """One of the recipe's presets (default: its first)."""

    world_size: int = 1
    """How many processes share a batch; of several, what they exchange in a step is told, too."""


def describe(recipe_name: str, preset: str | None = None) -> dict[str, list[LayerRow]]:
    """The layer tables of G and D, for a batch of one.

    Raises:
        UserError: If there is no such recipe or preset.
    """
    return _choose(recipe_name, preset).tables()


def describe_step(recipe_name: str, preset: str | None = None, *, num_processes: int = 1) -> StepCosts:
    """What one training step keeps in the memory of each process, and what the processes exchange.

    Raises:
        UserError: If there is no such recipe or preset, or the processes cannot share its batch evenly.
    """
    return _choose(recipe_name, preset).step(num_processes)


class _Subject(NamedTuple):
    """What is described: built once, since a large network takes a while even without memory."""

    config: RecipeConfig
    networks: tuple[nn.Module, nn.Module]
    inputs: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]

    def tables(self) -> dict[str, list[LayerRow]]:
        parts = zip(("Generator", "Discriminator"), self.networks, self.inputs, strict=True)
        return {title: layer_table(network, one) for title, network, one in parts}

    def step(self, num_processes: int) -> StepCosts:
        return step_costs(self.config, self.networks, self.inputs, num_processes)


def _choose(recipe_name: str, preset: str | None) -> _Subject:
    recipe = load_recipe(recipe_name)
    config = recipe.PRESETS[choose_preset(recipe, preset)]()
    return _Subject(config, _build(recipe, config), _inputs(recipe, config))


def _build(recipe: Recipe, config: RecipeConfig) -> tuple[nn.Module, nn.Module]:
    with WithoutInitialization(), torch.device("meta"):
        return recipe.build_generator(config).eval(), recipe.build_discriminator(config).eval()


def _inputs(recipe: Recipe, config: RecipeConfig) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What G and D take, for one image."""
    with torch.device("meta"):
        labels = torch.zeros(1, dtype=torch.int64)
        z = torch.zeros(1, recipe.build_prior(config).dim)
        images = torch.zeros(1, config.image_channels, config.resolution, config.resolution)
    return (z, labels), (images, labels)


def table_1_parameters(tables: dict[str, list[LayerRow]]) -> int:
    """What BigGAN's Table 1 counts: the parameters of G and D, but for the class embedding that G's blocks share."""
    return sum(row.parameters for rows in tables.values() for row in rows if row.type != SharedEmbedding.__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables; see ``python -m recipes.describe --help``."""

    def command() -> int:
        options = parse_options(Options, prog="python -m recipes.describe", description=__doc__ or "", args=argv)
        subject = _choose(options.recipe, options.preset)
        step = subject.step(options.world_size)
        tables = subject.tables()
        print("\n\n".join(format_table(rows, title) for title, rows in tables.items()))
        print("\n" + "\n".join(step.lines()))
        print(f"\nParam (G + D without G's shared embedding): {table_1_parameters(tables):,}")
        return 0

    return run_command("describe", command)


if __name__ == "__main__":
    raise SystemExit(main())
