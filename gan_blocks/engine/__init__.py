"""Train a GAN of your own: data, training, resume, sampling and evaluation, all by the public names below."""

from gan_blocks.engine.base.checks import (
    Fields,
    check_threads,
    require,
    require_at_least,
    require_each_once,
    require_positive,
    require_within,
)
from gan_blocks.engine.base.command_line import parse_options, run_command
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.base.interrupts import StopRequest
from gan_blocks.engine.base.randomness import random_stream, seeded_construction
from gan_blocks.engine.base.workers import worker_pool
from gan_blocks.engine.commands.console import run as run_console_command
from gan_blocks.engine.data.config import DataOption, ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images, load_images_of
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import ReadRequest, SourceKind
from gan_blocks.engine.data.sources import SOURCES
from gan_blocks.engine.data.stacked import NUM_STACKS, stacked_numbers
from gan_blocks.engine.evaluation.classifier import TrainedClassifier, class_scores, train_classifier
from gan_blocks.engine.evaluation.distribution import DistributionJudge
from gan_blocks.engine.evaluation.judge import Judge
from gan_blocks.engine.evaluation.metric import Metric, Plan, Report, Samples
from gan_blocks.engine.evaluation.metrics import METRICS
from gan_blocks.engine.evaluation.quality import measure_quality
from gan_blocks.engine.inspection.dry_run import WithoutInitialization
from gan_blocks.engine.pictures.figures import new_figure, save_figure
from gan_blocks.engine.pictures.sheets import save_sheet
from gan_blocks.engine.recipe.batches import FakeBatch, PairBatch, StepBatches
from gan_blocks.engine.recipe.config import AdamFields, TopKPlayers, TrainingConfig
from gan_blocks.engine.recipe.defaults import adam_optimizers
from gan_blocks.engine.recipe.latent import LatentFields, LatentName
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.registry import find_recipe
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.runs.checkpoints import Checkpoint
from gan_blocks.engine.runs.folder import RunFolder, compare_configs
from gan_blocks.engine.runs.identity import RecipeIdentity
from gan_blocks.engine.runs.optimizers import flatten_optimizer, restore_optimizer
from gan_blocks.engine.runs.weights import load_weights, mismatch_error
from gan_blocks.engine.sampling.converted import write_converted_run
from gan_blocks.engine.sampling.exported import load_for_export
from gan_blocks.engine.sampling.samples import check_truncation, draw_samples, spread_classes, truncated
from gan_blocks.engine.sampling.trained import TrainedGenerator, load_trained
from gan_blocks.engine.studies.runs import StudyStoppedError, train_for, train_ok, train_quietly, train_run
from gan_blocks.engine.studies.study import (
    Result,
    Study,
    carry_out_side_by_side,
    markdown_table,
    mean_and_deviation,
    study_command,
)
from gan_blocks.engine.training.updates import (
    fake_images_of,
    score_fake,
    score_generated,
    score_pair,
    score_separately,
    update_discriminator,
    update_generator,
)

__all__ = [
    "METRICS",
    "NUM_STACKS",
    "SOURCES",
    "AdamFields",
    "Checkpoint",
    "DataOption",
    "DataSource",
    "DistributionJudge",
    "FakeBatch",
    "Fields",
    "ImageFields",
    "ImageSet",
    "Judge",
    "LatentFields",
    "LatentName",
    "Metric",
    "PairBatch",
    "Plan",
    "ReadRequest",
    "Recipe",
    "RecipeIdentity",
    "Report",
    "Result",
    "RunFolder",
    "Samples",
    "SourceKind",
    "StepBatches",
    "StopRequest",
    "Study",
    "StudyStoppedError",
    "TopKPlayers",
    "TrainedClassifier",
    "TrainedGenerator",
    "TrainingConfig",
    "TrainingState",
    "UserError",
    "WithoutInitialization",
    "adam_optimizers",
    "carry_out_side_by_side",
    "check_threads",
    "check_truncation",
    "class_scores",
    "compare_configs",
    "draw_samples",
    "fake_images_of",
    "find_recipe",
    "flatten_optimizer",
    "load_for_export",
    "load_images",
    "load_images_of",
    "load_trained",
    "load_weights",
    "markdown_table",
    "mean_and_deviation",
    "measure_quality",
    "mismatch_error",
    "new_figure",
    "parse_options",
    "random_stream",
    "replace_durably",
    "require",
    "require_at_least",
    "require_each_once",
    "require_positive",
    "require_within",
    "restore_optimizer",
    "run_command",
    "run_console_command",
    "save_figure",
    "save_sheet",
    "score_fake",
    "score_generated",
    "score_pair",
    "score_separately",
    "seeded_construction",
    "spread_classes",
    "stacked_numbers",
    "study_command",
    "train_classifier",
    "train_for",
    "train_ok",
    "train_quietly",
    "train_run",
    "truncated",
    "update_discriminator",
    "update_generator",
    "worker_pool",
    "write_converted_run",
]
