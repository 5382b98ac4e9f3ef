"""The Inception-type score: whether a classifier is sure of each sample, and finds all classes.

Tested in ``tests/engine/evaluation/scores/test_scores.py``.
"""

from dataclasses import dataclass

import torch

from gan_blocks import ClassifierScore, classifier_score
from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.features.rows import FeatureSet
from gan_blocks.engine.evaluation.features.sets import FeatureSets
from gan_blocks.engine.evaluation.metric import Metric, Samples
from gan_blocks.engine.evaluation.scores.score import CONFIDENT, Score, ScoreReport

__all__ = ["CLASSIFIER_SCORE", "classes_score"]

PARTS = 10  # as in the papers, of which each should hold a hundred images
IN_PART = 100


@dataclass(frozen=True)
class ClassifierScoreOptions(Fields):
    """The Inception-type score, which is measured wherever the features have logits."""


def classes_score(sets: FeatureSets) -> Score | None:
    """The score of the samples beside that of as many real images; None where the network has no logits."""
    if not _has_logits(sets.generated):
        return None
    found = _of_parts(sets.generated, sets.seed)
    parts = _parts(len(sets.generated))
    interval = None
    if parts > 1:
        error = CONFIDENT * found.standard_deviation / (parts - 1) ** 0.5
        interval = found.mean - error, found.mean + error
    floor = sets.of_floor("classifier score", lambda _real, other: _of_parts(other, sets.seed).mean)
    name = f"CS-{sets.network.name}"
    more = {"standard_deviation": found.standard_deviation, "parts": parts}
    return Score("classifier_score", name, found.mean, interval, floor, sets.counts, more=more)


def _has_logits(features: FeatureSet) -> bool:
    return features.among(torch.arange(1)).logits() is not None


def _parts(count: int) -> int:
    return max(1, min(PARTS, count // IN_PART))


def _of_parts(features: FeatureSet, seed: int) -> ClassifierScore:
    """Of one part after the other, since a thousand logits of each image need not be in memory."""
    order = torch.randperm(len(features), generator=random_stream(seed, "classifier score"))
    scores = []
    for part in order.tensor_split(_parts(len(features))):
        logits = features.among(part).logits()
        assert logits is not None
        scores.append(classifier_score(logits, splits=1).mean)
    deviation, mean = torch.std_mean(torch.tensor(scores, dtype=torch.float64), correction=0)
    return ClassifierScore(mean.item(), deviation.item())


def _measure(_options: ClassifierScoreOptions, samples: Samples) -> ScoreReport | None:
    score = None if samples.features is None else classes_score(samples.features)
    return None if score is None else ScoreReport((score,))


CLASSIFIER_SCORE = Metric(name="classifier_score", options=ClassifierScoreOptions, measure=_measure)
