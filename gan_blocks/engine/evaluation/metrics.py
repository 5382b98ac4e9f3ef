"""The table of metrics that ``evaluate`` offers, in the order of its report.

Tested in ``tests/engine/evaluation/test_metrics.py``.
"""

from typing import Any

from gan_blocks.engine.evaluation.metric import Metric
from gan_blocks.engine.evaluation.pairs import MS_SSIM
from gan_blocks.engine.evaluation.patches import SLICED_WASSERSTEIN
from gan_blocks.engine.evaluation.quality import QUALITY

__all__ = ["METRICS"]

METRICS: dict[str, Metric[Any]] = {metric.name: metric for metric in (QUALITY, SLICED_WASSERSTEIN, MS_SSIM)}
