"""A trained generator, found by the run that holds it or by a weights file alone."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gan_blocks import Prior, TruncationStatistics
from recipes._engine.checkpoints import load_latest_checkpoint, load_weights, read_weights
from recipes._engine.converted_run import read_tables
from recipes._engine.errors import UserError
from recipes._engine.random_streams import seeded_construction
from recipes._engine.recipe import RecipeConfig, config_from_json, load_recipe
from recipes._engine.run_folder import RunFolder

__all__ = ["TrainedGenerator", "load_trained"]


@dataclass(frozen=True)
class TrainedGenerator:
    """The averaged generator of a run with what it takes to sample from it."""

    average: nn.Module
    prior: Prior
    config: RecipeConfig
    source: Path
    """The file that the weights came from."""
    notes: tuple[str, ...]
    """What to tell the user, such as a damaged checkpoint that was passed over."""
    converted: bool = False
    """Whether it comes from another layout, and is sampled with its own singular vectors and statistics."""
    tables: TruncationStatistics | None = None
    """The statistics for each truncation, where it was converted with some."""


def load_trained(*, run: Path | None, weights: Path | None, device: torch.device) -> TrainedGenerator:
    """Load the moving average of G from the newest sound checkpoint of a run, or from one weights file.

    Raises:
        UserError: If not exactly one of them is given, it is not there, or it does not fit its recipe.
    """
    if (run is None) == (weights is None):
        raise UserError("give one of --run RUN and --weights FILE.")
    notes: tuple[str, ...] = ()
    if run is not None:
        checkpoint = load_latest_checkpoint(RunFolder.open(run).checkpoints, only=("ema",))
        weights, notes = checkpoint.path / "ema.safetensors", checkpoint.notes
    assert weights is not None
    tensors, metadata = read_weights(weights)
    recipe = load_recipe(metadata["recipe"])
    config = config_from_json(recipe, metadata["config"])
    with seeded_construction(config.seed, "generator"):
        generator = recipe.build_generator(config).to(device)
    load_weights(generator, tensors, str(weights))
    average, prior = generator.eval().requires_grad_(False), recipe.build_prior(config)
    converted = "converted" in metadata
    tables = read_tables(weights) if converted else None
    return TrainedGenerator(average, prior, config, weights, notes, converted, tables)
