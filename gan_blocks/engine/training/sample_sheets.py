"""Sample sheets of a run that trains, and the generator that they and its evaluations are drawn from.

Layers that make noise in every mode make the same each time, and take none of the random numbers of the training.

Tested in ``tests/engine/training/test_loop.py``.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from gan_blocks import Prior
from gan_blocks.engine.base.randomness import seeded_noise
from gan_blocks.engine.data.image_set import class_name
from gan_blocks.engine.pictures.sheets import save_sheet
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.sampling.inference import for_inference
from gan_blocks.engine.sampling.samples import class_sheet, sampling_generator

__all__ = ["draw_sheet", "ready_generator"]


def ready_generator(
    state: TrainingState, prior: Prior, config: TrainingConfig, *, standing_batches: int | None = None
) -> nn.Module:
    """The averaged generator as :func:`gan_blocks.engine.sampling.sampling_generator` prepares it.

    Several processes, all of which have to call this, take turns with the standing batches.
    """
    with seeded_noise(config.seed, "standing statistics", device=state.device):
        return sampling_generator(state.ema.module, prior, config, batches=standing_batches)


def draw_sheet(
    generator: nn.Module, prior: Prior, config: TrainingConfig, class_names: Sequence[str], path: Path
) -> None:
    """Save a sheet of samples with the name of its class beside each row; the generator is folded for it."""
    device = next(generator.parameters()).device
    with seeded_noise(config.seed, "sheet", device=device):
        images, classes = class_sheet(for_inference(generator), prior, config)
    save_sheet(path, images, columns=10, captions=[class_name(class_names, label) for label in classes])
