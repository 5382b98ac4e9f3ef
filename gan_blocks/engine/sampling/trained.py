"""A trained generator, found by the run that holds it or by a weights file alone.

Tested in ``tests/engine/commands/test_sample.py``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gan_blocks import Prior, TruncatedBatchNormStatistics
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.memory import within_memory
from gan_blocks.engine.base.randomness import seeded_construction
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.registry import find_recipe, recipe_of
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.identity import RecipeIdentity
from gan_blocks.engine.runs.weights import load_weights, read_weights
from gan_blocks.engine.sampling.converted import read_tables

__all__ = ["TrainedGenerator", "load_trained"]


@dataclass(frozen=True)
class TrainedGenerator:
    """The averaged generator of a run with what it takes to sample from it."""

    recipe: Recipe[Any]
    average: nn.Module
    prior: Prior
    config: TrainingConfig
    source: Path
    """The file that the weights came from."""
    notes: tuple[str, ...]
    """What to tell the user, such as a damaged checkpoint that was passed over."""
    converted: bool = False
    """Whether it comes from another layout, and is sampled with its own singular vectors and statistics."""
    tables: TruncatedBatchNormStatistics | None = None
    """The statistics for each truncation, where it was converted with some."""


def load_trained(
    *, run: Path | None, weights: Path | None, device: torch.device, recipe: Recipe[Any] | str | None = None
) -> TrainedGenerator:
    """Load the moving average of G from the newest sound checkpoint of a run, or from one weights file.

    Args:
        run: Folder of a run.
        weights: A weights file, instead of a run.
        device: Where the generator goes.
        recipe: The recipe that made them, or the file or module that holds it, where it is none that is registered.

    Raises:
        UserError: If not exactly one of them is given, it is not there, or it does not fit its recipe.
    """
    if run is not None and weights is not None:
        raise UserError("give one of --run RUN and --weights FILE.")
    notes: tuple[str, ...] = ()
    if run is not None:
        checkpoint = RunFolder.open(run).newest_checkpoint(only=("ema",))
        tensors, metadata, notes = checkpoint.tensors["ema"], checkpoint.metadata, checkpoint.notes
        weights = checkpoint.path / "ema.safetensors"
    elif weights is not None:
        tensors, metadata = read_weights(weights)
    else:
        raise UserError("give one of --run RUN and --weights FILE.")
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    made_by = RecipeIdentity.from_dict(metadata)
    recipe = recipe_of(made_by, run or weights, recipe)
    if change := recipe.identity.changed_since(made_by):
        notes = (*notes, change)
    config = recipe.config_from_json(metadata["config"])
    with within_memory(f"the networks of {run or weights}", copies=1), seeded_construction(config.seed, "generator"):
        generator = recipe.build_generator(config).to(device)
    load_weights(generator, tensors, str(weights))
    average, prior = generator.eval().requires_grad_(False), recipe.build_prior(config)
    converted = "converted" in metadata
    tables = read_tables(weights) if converted else None
    return TrainedGenerator(recipe, average, prior, config, weights, notes, converted, tables)
