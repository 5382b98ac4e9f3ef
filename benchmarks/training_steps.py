"""Training steps of a recipe on images of noise, for the benchmarks to time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_blocks.engine import ImageSet, Recipe, StepBatches, TrainingConfig, TrainingState
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions

__all__ = ["trainer"]

Step = Callable[[TrainingState, StepBatches, Any], dict[str, Tensor]]


def trainer(recipe: Recipe[Any], config: TrainingConfig, step: Step | None = None) -> Callable[[int], None]:
    """A function that takes one training step, of any number, with networks of its own.

    Args:
        recipe: Builds them.
        config: Its Config.
        step: Instead of the recipe's.
    """
    options, num_images = RunOptions(), 64
    layout = PixelLayout(config.resolution, config.image_channels)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (num_images, *layout.shape), dtype=torch.uint8, generator=random)
    labels = torch.arange(num_images) % config.num_classes
    names = tuple(f"noise {number}" for number in range(config.num_classes))
    images = ImageSet(lambda indices: pixels[indices], labels, names, layout, ())
    state = build_state(recipe, config, options)
    source = BatchSource(images, recipe.build_prior(config), config, options)
    taken = step or recipe.train_step

    def train(number: int) -> None:
        taken(state, source.step(number), config)

    return train
