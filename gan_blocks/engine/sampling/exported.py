"""The networks of a run as they go to other code: what they evaluate with is settled and in the state dicts.

Tested in ``tests/recipes/test_convert.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_blocks import TruncatedBatchNormStatistics, advance_power_iteration
from gan_blocks.engine.base.randomness import seeded_construction
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.runs.checkpoints import MissingPartError
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.runs.weights import load_weights
from gan_blocks.engine.sampling.samples import POWER_ITERATIONS, sampling_generator
from gan_blocks.engine.sampling.trained import TrainedGenerator, load_trained

__all__ = ["ExportedRun", "load_for_export"]

STATISTICS = (".running_mean", ".running_var")


@dataclass(frozen=True)
class ExportedRun:
    """State dicts of a run's networks."""

    recipe: Recipe[Any]
    config: Any
    generator: dict[str, Tensor]
    """Of the averaged G."""
    discriminator: dict[str, Tensor] | None
    tables: TruncatedBatchNormStatistics | None
    """BatchNorm statistics by truncation, if the run has some."""
    notes: tuple[str, ...]


def load_for_export(path: Path, *, recipe: Recipe[Any] | None = None) -> ExportedRun:
    """Load the networks of a run's newest sound checkpoint.

    Converted weights come as they are. Others get what samples are drawn with: converged singular vectors and standing
    statistics.

    Args:
        path: Folder of the run.
        recipe: The recipe that made it, where it is none that is registered.

    Raises:
        UserError: If there is no such run, it has no sound checkpoint, or D of the newest sound G is damaged.
    """
    trained = load_trained(run=path, weights=None, device=torch.device("cpu"), recipe=recipe)
    folder = RunFolder.open(path)
    average = trained.average
    generator = dict(average.state_dict())
    if not trained.converted:
        sampled = sampling_generator(average, trained.prior, trained.config).state_dict()
        advance_power_iteration(average, n_power_iterations=POWER_ITERATIONS)
        settled = {name: value for name, value in sampled.items() if name.endswith(STATISTICS)}
        generator = {**average.state_dict(), **settled}
    try:
        tensors = folder.newest_checkpoint(only=("discriminator",), step=trained.step).tensors["discriminator"]
        discriminator = _discriminator(folder, trained, tensors)
    except MissingPartError:
        discriminator = None
    return ExportedRun(trained.recipe, trained.config, generator, discriminator, trained.tables, trained.notes)


def _discriminator(folder: RunFolder, trained: TrainedGenerator, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with seeded_construction(trained.config.seed, "discriminator"):
        network = trained.recipe.build_discriminator(trained.config)
    load_weights(network, tensors, f"the discriminator of {folder.path}")
    if not trained.converted:
        advance_power_iteration(network.eval(), n_power_iterations=POWER_ITERATIONS)
    return dict(network.state_dict())
