"""The table of metrics that ``evaluate`` offers, in the order of its report.

Tested in ``tests/engine/evaluation/test_metrics.py``.
"""

from typing import Any

from gan_blocks.engine.evaluation.memorization import MEMORIZATION
from gan_blocks.engine.evaluation.metric import Metric
from gan_blocks.engine.evaluation.pairs import MS_SSIM
from gan_blocks.engine.evaluation.patches import SLICED_WASSERSTEIN
from gan_blocks.engine.evaluation.quality import QUALITY
from gan_blocks.engine.evaluation.scores.about import FEATURES
from gan_blocks.engine.evaluation.scores.classes import CLASSIFIER_SCORE
from gan_blocks.engine.evaluation.scores.copies import COPIES
from gan_blocks.engine.evaluation.scores.frechet import FRECHET
from gan_blocks.engine.evaluation.scores.kernel import KERNEL
from gan_blocks.engine.evaluation.scores.neighborhoods import NEIGHBORHOODS
from gan_blocks.engine.evaluation.scores.slices import SLICES

__all__ = ["METRICS"]

METRICS: dict[str, Metric[Any]] = {
    metric.name: metric
    for metric in (
        QUALITY,
        SLICED_WASSERSTEIN,
        MS_SSIM,
        MEMORIZATION,
        FEATURES,
        FRECHET,
        KERNEL,
        SLICES,
        CLASSIFIER_SCORE,
        NEIGHBORHOODS,
        COPIES,
    )
}
"""What ``gan-blocks evaluate`` can measure, by name, in the order of its table; one of your own is added here."""
