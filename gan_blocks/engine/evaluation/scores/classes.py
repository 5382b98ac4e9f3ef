"""The Inception-type score: whether a classifier is sure of each sample, and finds all classes.

Tested in ``tests/engine/evaluation/scores/test_scores.py``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gan_blocks import ClassifierScore, classifier_score
from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.features.rows import FeatureSet
from gan_blocks.engine.evaluation.features.sets import FeatureSets
from gan_blocks.engine.evaluation.metric import Metric, Samples
from gan_blocks.engine.evaluation.scores.score import CONFIDENT, Score, ScoreReport

__all__ = ["CLASSIFIER_SCORE", "classes_score", "real_classes_score"]

PARTS = 10  # as in the papers, of which each should hold a hundred images
IN_PART = 100


@dataclass(frozen=True)
class ClassifierScoreOptions(Fields):
    """The Inception-type score, which is measured wherever the features have logits."""


def classes_score(sets: FeatureSets) -> Score | None:
    """The score of the samples beside that of as many real images; None where the network has no logits."""
    logits = sets.generated.logits()
    if logits is None:
        return None
    found = _of_parts(logits, sets.seed)
    parts = _parts(len(logits))
    error = CONFIDENT * found.standard_deviation / (parts - 1) ** 0.5 if parts > 1 else None
    more = {"standard_deviation": found.standard_deviation, "parts": parts}
    interval = None if error is None else (found.mean - error, found.mean + error)
    return Score(
        "classifier_score",
        f"CS-{sets.network.name}",
        found.mean,
        interval,
        real_classes_score(sets),
        sets.counts,
        more=more,
    )


def real_classes_score(sets: FeatureSets) -> float:
    """That of as many other real images as there are samples, or as many as there are."""

    def of_real(_real: FeatureSet, other: FeatureSet) -> float:
        logits = other.logits()
        assert logits is not None
        return _of_parts(logits, sets.seed).mean

    return float(sets.of_floor("classifier score", of_real))


def _parts(count: int) -> int:
    return max(1, min(PARTS, count // IN_PART))


def _of_parts(logits: Tensor, seed: int) -> ClassifierScore:
    order = torch.randperm(len(logits), generator=random_stream(seed, "classifier score"))
    return classifier_score(logits[order], splits=_parts(len(logits)))


def _measure(_options: ClassifierScoreOptions, samples: Samples) -> ScoreReport | None:
    score = None if samples.features is None else classes_score(samples.features)
    return None if score is None else ScoreReport((score,))


CLASSIFIER_SCORE = Metric(name="classifier_score", options=ClassifierScoreOptions, measure=_measure)
