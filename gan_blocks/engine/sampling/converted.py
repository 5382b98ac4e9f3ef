"""Runs that hold converted weights and no training: how they are written, and what marks them.

Such a run has one checkpoint, of step 0, with the generator (as ``generator`` and as ``ema``), the discriminator if
there was one, and the tables of BatchNorm statistics if the layout has them. Its weights say in their metadata that
they are converted: they are sampled with their own singular vectors and statistics.

Tested in ``tests/recipes/test_convert.py``.
"""

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from gan_blocks import BatchNormTable, TruncatedBatchNormStatistics
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.config_json import config_to_json
from gan_blocks.engine.runs.checkpoints import save_checkpoint
from gan_blocks.engine.runs.folder import CONVERTED, RunFolder
from gan_blocks.engine.runs.identity import RecipeIdentity
from gan_blocks.engine.runs.weights import check_finite, read_weights

__all__ = ["TABLES_PART", "read_tables", "write_converted_run"]

TABLES_PART = "truncation_statistics"


def write_converted_run(
    path: Path | None,
    *,
    recipe: RecipeIdentity,
    config: TrainingConfig,
    layout: str,
    generator: Mapping[str, Tensor],
    discriminator: Mapping[str, Tensor] | None,
    tables: TruncatedBatchNormStatistics | None,
) -> RunFolder:
    """Make the folder of a run from converted weights.

    Args:
        path: The folder; None: a new one in ``runs``.
        recipe: The recipe whose networks they are.
        config: Its Config.
        layout: Where the weights come from.
        generator: State dict of G.
        discriminator: State dict of D, if there is one.
        tables: BatchNorm statistics by truncation, if there are any.

    Raises:
        UserError: If the folder holds a run or cannot be written, or a value is not finite.
    """
    parts = {"generator": generator, "ema": generator}
    if discriminator is not None:
        parts["discriminator"] = discriminator
    if tables is not None:
        parts[TABLES_PART] = _to_tensors(tables)
    check_finite(parts)  # before there is a folder
    saved = config_to_json(config)
    if path is None:
        folder = RunFolder.create(Path("runs"), recipe, CONVERTED, saved, datetime.now(UTC))
    else:
        folder = RunFolder.create_at(path, recipe, CONVERTED, saved)
    metadata = {**folder.metadata(), "converted": layout}
    with closing(folder.begin_to_write()):
        save_checkpoint(folder.checkpoints, 0, tensors=parts, metadata=metadata, keep_last=1)
        folder.append_log({"event": "converted", "step": 0, "layout": layout})
    return folder


def read_tables(weights: Path) -> TruncatedBatchNormStatistics | None:
    """The tables that lie beside a weights file, if there are any.

    Raises:
        UserError: If they are damaged.
    """
    path = weights.with_name(f"{TABLES_PART}.safetensors")
    if not path.exists():
        return None
    tensors, _ = read_weights(path)
    names = [key.removeprefix("means.") for key in tensors if key.startswith("means.")]
    tables = {name: BatchNormTable(tensors[f"means.{name}"], tensors[f"variances.{name}"]) for name in names}
    return TruncatedBatchNormStatistics(tensors["truncations"], tables)


def _to_tensors(statistics: TruncatedBatchNormStatistics) -> dict[str, Tensor]:
    tensors = {"truncations": statistics.truncations}
    for name, table in statistics.tables.items():
        tensors |= {f"means.{name}": table.means, f"variances.{name}": table.variances}
    return tensors
