"""The folder of a run: Config, log, checkpoints, weights, report."""

from gan_blocks.engine.runs.checkpoints import Checkpoint
from gan_blocks.engine.runs.config_file import compare_configs
from gan_blocks.engine.runs.identity import RecipeIdentity
from gan_blocks.engine.runs.optimizers import flatten_optimizer, restore_optimizer
from gan_blocks.engine.runs.weights import load_weights, mismatch_error, write_weights

__all__ = [
    "Checkpoint",
    "RecipeIdentity",
    "compare_configs",
    "flatten_optimizer",
    "load_weights",
    "mismatch_error",
    "restore_optimizer",
    "write_weights",
]
