"""Samples that are nearer to a training image than training images are to each other.

Tested in ``tests/engine/evaluation/scores/test_scores.py``.
"""

from dataclasses import dataclass

from torch import Tensor

from gan_blocks import nearest_neighbors
from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.features.rows import FeatureSet
from gan_blocks.engine.evaluation.metric import Metric, Samples
from gan_blocks.engine.evaluation.scores.score import Counts, Score, ScoreReport, share_interval

__all__ = ["COPIES", "nearer_than_training_images"]

MOST_SAMPLES = 2000  # each is compared with all training images, among which the copied one is


@dataclass(frozen=True)
class CopyOptions(Fields):
    """The share of samples that are near to a training image, which is measured wherever there are features."""


def nearer_than_training_images(samples: FeatureSet, training: FeatureSet) -> Tensor:
    """For each sample: is its nearest training image farther from all other training images than from the sample?

    Returns:
        bool, ``(samples,)``; true of copies.
    """
    distances, numbers = (each.flatten() for each in nearest_neighbors(samples, training))
    found, place = numbers.unique(return_inverse=True)
    between = nearest_neighbors(training.among(found), training, excluded=found).distances.flatten()
    return distances < between[place]


def _measure(_options: CopyOptions, samples: Samples) -> ScoreReport | None:
    sets = samples.features
    if sets is None:
        return None
    stream = random_stream(sets.seed, "copies")
    members = nearer_than_training_images(sets.generated.chosen(MOST_SAMPLES, stream), sets.real)

    def of_real(real: FeatureSet, other: FeatureSet) -> float:
        some = other.chosen(MOST_SAMPLES, random_stream(sets.seed, "copies"))
        return nearer_than_training_images(some, real).double().mean().item()

    floor_real, other = sets.floor
    counts = Counts(len(members), len(sets.real), min(MOST_SAMPLES, len(other)), len(floor_real))
    floor = sets.of_floor("copies", of_real)
    share = members.double().mean().item()
    score = Score("copied_share", f"copies-{sets.network.name}", share, share_interval(members), floor, counts)
    return ScoreReport(
        (score,),
        ("    samples nearer to a training image than any other training image is: half of new ones, all copies",),
    )


COPIES = Metric(name="copies", options=CopyOptions, measure=_measure)
