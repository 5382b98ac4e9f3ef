"""Measuring samples against real images."""

from gan_blocks.engine.evaluation.classifier import TrainedClassifier, class_scores, train_classifier
from gan_blocks.engine.evaluation.distribution import DistributionJudge, FeatureDistance, load_network
from gan_blocks.engine.evaluation.image_rows import RealImages
from gan_blocks.engine.evaluation.judge import Judge
from gan_blocks.engine.evaluation.metric import Metric, Plan, Report, Samples
from gan_blocks.engine.evaluation.metrics import METRICS
from gan_blocks.engine.evaluation.quality import check_sample_count, measure_quality

__all__ = [
    "METRICS",
    "DistributionJudge",
    "FeatureDistance",
    "Judge",
    "Metric",
    "Plan",
    "RealImages",
    "Report",
    "Samples",
    "TrainedClassifier",
    "check_sample_count",
    "class_scores",
    "load_network",
    "measure_quality",
    "train_classifier",
]
