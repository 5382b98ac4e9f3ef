"""Describe the networks of a recipe and preset: layers, output shapes, parameters and multiply-adds.

Nothing is trained, loaded or allocated: the networks are built on torch's meta device. For example

    python -m recipes.describe biggan_deep --preset imagenet-128
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import tyro
from torch import nn

from gan_blocks import SharedEmbedding
from recipes._engine.command_line import parse_options, run_command
from recipes._engine.communication import Communication, communication
from recipes._engine.dry_run import WithoutInitialization
from recipes._engine.layer_table import LayerRow, format_table, layer_table
from recipes._engine.recipe import Recipe, RecipeConfig, choose_preset, load_recipe

__all__ = ["Options", "describe", "describe_processes", "main", "table_1_parameters"]


@dataclass(frozen=True)
class Options:
    """What to describe."""

    recipe: tyro.conf.Positional[str]
    """Name of a training recipe, such as biggan_deep."""

    preset: str | None = None
    """One of the recipe's presets (default: its first)."""

    world_size: int | None = None
    """Also say what a training step on this many processes exchanges and keeps in memory."""


def describe(recipe_name: str, preset: str | None = None) -> dict[str, list[LayerRow]]:
    """The layer tables of G and D, for a batch of one.

    Raises:
        UserError: If there is no such recipe or preset.
    """
    recipe, config = _choose(recipe_name, preset)
    generator, discriminator = _build(recipe, config)
    with torch.device("meta"):
        labels = torch.zeros(1, dtype=torch.int64)
        z = torch.zeros(1, recipe.build_prior(config).dim)
        images = torch.zeros(1, config.image_channels, config.resolution, config.resolution)
    return {
        "Generator": layer_table(generator, (z, labels)),
        "Discriminator": layer_table(discriminator, (images, labels)),
    }


def describe_processes(recipe_name: str, preset: str | None, num_processes: int) -> Communication:
    """What one training step on this many processes exchanges.

    Raises:
        UserError: If there is no such recipe or preset, or the processes cannot share its batch evenly.
    """
    recipe, config = _choose(recipe_name, preset)
    return communication(config, *_build(recipe, config), num_processes)


def _choose(recipe_name: str, preset: str | None) -> tuple[Recipe, RecipeConfig]:
    recipe = load_recipe(recipe_name)
    return recipe, recipe.PRESETS[choose_preset(recipe, preset)]()


def _build(recipe: Recipe, config: RecipeConfig) -> tuple[nn.Module, nn.Module]:
    with WithoutInitialization(), torch.device("meta"):
        return recipe.build_generator(config).eval(), recipe.build_discriminator(config).eval()


def table_1_parameters(tables: dict[str, list[LayerRow]]) -> int:
    """What BigGAN's Table 1 counts: the parameters of G and D, but for the class embedding that G's blocks share."""
    return sum(row.parameters for rows in tables.values() for row in rows if row.type != SharedEmbedding.__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables; see ``python -m recipes.describe --help``."""

    def command() -> int:
        options = parse_options(Options, prog="python -m recipes.describe", description=__doc__ or "", args=argv)
        tables = describe(options.recipe, options.preset)
        print("\n\n".join(format_table(rows, title) for title, rows in tables.items()))
        print(f"\nParam (G + D without G's shared embedding): {table_1_parameters(tables):,}")
        if options.world_size is not None:
            exchanged = describe_processes(options.recipe, options.preset, options.world_size)
            print("\n" + "\n".join(exchanged.lines()))
        return 0

    return run_command("describe", command)


if __name__ == "__main__":
    raise SystemExit(main())
