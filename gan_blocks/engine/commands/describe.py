"""Describe the networks of a recipe: layers, output shapes, parameters, multiply-adds, memory of a step.

The first word names the recipe. All options of its Config work, so that you can compare variants before you train any:

    gan-blocks describe biggan_deep --preset imagenet-128
    gan-blocks describe biggan --preset imagenet-256 --num-classes 18291 --generator-attention 64

Nothing is trained, loaded or allocated, since the networks are built on torch's meta device.

Tested in ``tests/engine/commands/test_describe.py``.
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from gan_blocks import SharedEmbedding
from gan_blocks.engine.base.checks import Fields, require_positive
from gan_blocks.engine.base.failed_layer import naming_failed_layer
from gan_blocks.engine.base.terminal.command_line import asks_for_help, run_command, without_notes
from gan_blocks.engine.commands.train import recipe_usage, take_recipe
from gan_blocks.engine.inspection.dry_run import build_on_meta
from gan_blocks.engine.inspection.layer_table import LayerRow, format_table, layer_table
from gan_blocks.engine.inspection.step_costs import StepCosts, step_costs
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.training.command import parse_with_config

__all__ = ["describe", "describe_step", "main", "table_1_parameters"]


@dataclass(frozen=True)
class Processes(Fields):
    """How many processes train."""

    help_group: ClassVar[str] = "run"

    world_size: int = 1
    """How many processes share a batch; of several, what they exchange in a step is told, too."""

    def __post_init__(self) -> None:
        """Check the value."""
        super().__post_init__()
        require_positive(self, "world_size")


def describe(recipe: Recipe[Any], config: TrainingConfig) -> dict[str, list[LayerRow]]:
    """The layer tables of G and D, for a batch of one."""
    return _Subject.of(recipe, config).tables()


def describe_step(recipe: Recipe[Any], config: TrainingConfig, *, num_processes: int = 1) -> StepCosts:
    """What one training step keeps in the memory of each process, and what the processes exchange.

    Raises:
        UserError: If the processes cannot share its batch evenly.
    """
    return _Subject.of(recipe, config).step(num_processes)


class _Subject(NamedTuple):
    """What is described: built once, since a large network takes a while even without memory."""

    config: TrainingConfig
    networks: tuple[nn.Module, nn.Module]
    inputs: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]

    @classmethod
    def of(cls, recipe: Recipe[Any], config: TrainingConfig) -> "_Subject":
        return cls(config, build_on_meta(recipe, config), _inputs(recipe, config))

    def tables(self) -> dict[str, list[LayerRow]]:
        parts = zip(("Generator", "Discriminator"), self.networks, self.inputs, strict=True)
        with self._naming_failed_layer():
            return {title: layer_table(network, one) for title, network, one in parts}

    def step(self, num_processes: int) -> StepCosts:
        with self._naming_failed_layer():
            return step_costs(self.config, self.networks, self.inputs, num_processes)

    def _naming_failed_layer(self) -> AbstractContextManager[None]:
        return naming_failed_layer({"the generator": self.networks[0], "the discriminator": self.networks[1]})


def _inputs(recipe: Recipe[Any], config: TrainingConfig) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What G and D take, for one image."""
    with torch.device("meta"):
        labels = torch.zeros(1, dtype=torch.int64)
        z = torch.zeros(1, recipe.build_prior(config).dim)
        images = torch.zeros(1, config.image_channels, config.resolution, config.resolution)
    return (z, labels), (images, labels)


def table_1_parameters(tables: dict[str, list[LayerRow]]) -> int:
    """What BigGAN's Table 1 counts: the parameters of G and D, but for the class embedding that G's blocks share."""
    return sum(row.parameters for rows in tables.values() for row in rows if row.type != SharedEmbedding.__name__)


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks describe") -> int:
    """Print both tables; see ``gan-blocks describe --help``."""
    words = list(sys.argv[1:] if argv is None else argv)

    def command() -> int:
        if asks_for_help(words[:1]):
            about = without_notes(__doc__ or "").strip()
            print(recipe_usage(prog, f"lists the options of a recipe's networks.\n\n{about}"))
            return 0
        recipe, rest = take_recipe(words)
        about = (__doc__ or "").partition("\n\n")[0]
        config, processes = parse_with_config(
            recipe, Processes, prog=f"{prog} {words[0]}", description=about, args=rest
        )
        subject = _Subject.of(recipe, config)
        step = subject.step(processes.world_size)
        tables = subject.tables()
        print("\n\n".join(format_table(rows, title) for title, rows in tables.items()))
        print("\n" + "\n".join(step.lines()))
        has_shared = any(row.type == SharedEmbedding.__name__ for row in tables["Generator"])
        without = " without G's shared embedding" if has_shared else ""
        print(f"\nParam (G + D{without}): {table_1_parameters(tables):,}")
        return 0

    return run_command("describe", command)
