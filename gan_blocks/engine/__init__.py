"""Train a GAN of your own: data, training, resume, sampling and evaluation, all by the public names below."""

from gan_blocks.engine.base.checks import (
    Fields,
    require,
    require_at_least,
    require_each_once,
    require_positive,
    require_within,
)
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands.console import run as run_console_command
from gan_blocks.engine.data.config import DataOption, ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.recipe.batches import FakeBatch, PairBatch, StepBatches
from gan_blocks.engine.recipe.config import AdamFields, TrainingConfig
from gan_blocks.engine.recipe.defaults import adam_optimizers
from gan_blocks.engine.recipe.latent import LatentFields, LatentName
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.registry import find_recipe
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.sampling.samples import draw_samples
from gan_blocks.engine.sampling.trained import TrainedGenerator, load_trained
from gan_blocks.engine.training.updates import (
    fake_images_of,
    score_fake,
    score_generated,
    score_generator_pair,
    score_pair,
    score_separately,
    update_discriminator,
    update_generator,
)

__all__ = [
    "AdamFields",
    "DataOption",
    "FakeBatch",
    "Fields",
    "ImageFields",
    "ImageSet",
    "LatentFields",
    "LatentName",
    "PairBatch",
    "Recipe",
    "RunFolder",
    "StepBatches",
    "TrainedGenerator",
    "TrainingConfig",
    "TrainingState",
    "UserError",
    "adam_optimizers",
    "draw_samples",
    "fake_images_of",
    "find_recipe",
    "load_images",
    "load_trained",
    "require",
    "require_at_least",
    "require_each_once",
    "require_positive",
    "require_within",
    "run_console_command",
    "score_fake",
    "score_generated",
    "score_generator_pair",
    "score_pair",
    "score_separately",
    "update_discriminator",
    "update_generator",
]
