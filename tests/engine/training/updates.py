"""The smallest SN-GAN, ready for its first updates in float64."""

from typing import Any

import torch
from torch import Tensor

from gan_blocks.engine import Recipe, StepBatches, TrainingState, load_images
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.build import build_state
from gan_blocks.engine.recipe.options import RunOptions
from recipes import sngan
from tests.engine.kept_gradients import keep_gradients, kept_gradients

CONFIG = sngan.Config(
    resolution=16,
    num_classes=3,
    channels=8,
    latent_dim=6,
    generator_widths=(2, 2, 1),
    discriminator_widths=(1, 2, 2),
    generator_attention=(),
    discriminator_attention=(),
    batch_size=6,
    discriminator_steps=1,
)


def prepared(
    config: sngan.Config, recipe: Recipe[sngan.Config] = sngan.RECIPE, **options: Any
) -> tuple[TrainingState, StepBatches]:
    run = RunOptions(device="cpu", precision="fp64", **options)
    images = load_images(config.data, resolution=16, channels=1, num_classes=3)
    source = BatchSource(images, sngan.RECIPE.build_prior(config), config, run)
    state = build_state(recipe, config, run)
    keep_gradients(state)
    return state, source.step(1)


def gradients(network: torch.nn.Module) -> list[Tensor]:
    return list(kept_gradients(network).values())
