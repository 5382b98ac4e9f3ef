"""The networks of a run as they go to other code: what they evaluate with is settled and in the state dicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_blocks import SpectralNorm, TruncationStatistics, advance_power_iteration
from recipes._engine.checkpoints import load_latest_checkpoint
from recipes._engine.random_streams import seeded_construction
from recipes._engine.recipe import load_recipe
from recipes._engine.run_folder import RunFolder
from recipes._engine.sampling import POWER_ITERATIONS, ready_generator
from recipes._engine.trained import load_trained
from recipes._engine.weights import load_weights

__all__ = ["ExportedRun", "load_for_export"]

STATISTICS = (".running_mean", ".running_var")


@dataclass(frozen=True)
class ExportedRun:
    """State dicts of a run's networks."""

    config: Any
    generator: dict[str, Tensor]
    """Of the averaged G."""
    discriminator: dict[str, Tensor] | None
    tables: TruncationStatistics | None
    """BatchNorm statistics by truncation, if the run has some."""
    notes: tuple[str, ...]


def load_for_export(path: Path) -> ExportedRun:
    """Load the networks of a run's newest sound checkpoint.

    Converted weights come as they are. Others get what samples are drawn with: converged singular vectors and standing
    statistics.

    Raises:
        UserError: If there is no such run, or it has no sound checkpoint.
    """
    trained = load_trained(run=path, weights=None, device=torch.device("cpu"))
    folder = RunFolder.open(path)
    average = trained.average
    generator = dict(average.state_dict())
    if not trained.converted:
        sampled = ready_generator(trained).state_dict()
        _converge(average)
        settled = {name: value for name, value in sampled.items() if name.endswith(STATISTICS)}
        generator = {**average.state_dict(), **settled}
    tensors = load_latest_checkpoint(folder.checkpoints).tensors.get("discriminator")
    discriminator = None if tensors is None else _discriminator(folder, trained.config, tensors, trained.converted)
    return ExportedRun(trained.config, generator, discriminator, trained.tables, trained.notes)


def _discriminator(folder: RunFolder, config: Any, tensors: Mapping[str, Tensor], converted: bool) -> dict[str, Tensor]:
    with seeded_construction(config.seed, "discriminator"):
        network = load_recipe(folder.recipe).build_discriminator(config)
    load_weights(network, tensors, f"the discriminator of {folder.path}")
    if not converted:
        _converge(network.eval())
    return dict(network.state_dict())


def _converge(network: nn.Module) -> None:
    if any(isinstance(module, SpectralNorm) for module in network.modules()):
        advance_power_iteration(network, num_iterations=POWER_ITERATIONS)
