"""The Fréchet distance of features, of all images and within each class.

Tested in ``tests/engine/evaluation/scores/test_scores.py``.
"""

from dataclasses import dataclass

import torch

from gan_blocks import FeatureMoments, frechet_distance, frechet_standard_error
from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.data.image_set import class_name
from gan_blocks.engine.evaluation.features.rows import FeatureSet
from gan_blocks.engine.evaluation.features.sets import FeatureSets
from gan_blocks.engine.evaluation.metric import Metric, Samples
from gan_blocks.engine.evaluation.scores.score import CONFIDENT, Score, ScoreReport

__all__ = ["FRECHET", "frechet_of_classes", "frechet_score"]

MOST_FOR_INTERVAL = 4096  # of each set; the variance of so many influences is exact to some percent
WORST_SHOWN = 5


@dataclass(frozen=True)
class FrechetOptions(Fields):
    """The Fréchet distance, which is measured wherever there are features."""


def frechet_score(sets: FeatureSets) -> Score:
    """The distance of all samples, and its interval by the delta method."""
    real, fake = sets.real.moments(), sets.generated.moments()
    value = frechet_distance(real, fake)
    error = CONFIDENT * frechet_standard_error(
        real, fake, *(_some(each, sets.seed).features() for each in (sets.real, sets.generated))
    )
    floor = sets.of_floor("frechet", _distance)
    name = sets.network.distance_name
    return Score("frechet_distance", name, value, (max(0.0, value - error), value + error), floor, sets.counts)


def _some(features: FeatureSet, seed: int) -> FeatureSet:
    return features.chosen(MOST_FOR_INTERVAL, random_stream(seed, "features", "interval"))


def _distance(real: FeatureSet, fake: FeatureSet) -> float:
    return frechet_distance(real.moments(), fake.moments())


def frechet_of_classes(sets: FeatureSets) -> tuple[dict[int, float], float | None]:
    """The distance within each class that has two images of each kind, and the mean of those of other real images."""
    pooled: dict[int, FeatureMoments] = {}
    distances = {}
    for label in sets.classes:
        real, fake = sets.real.of_class(label), sets.generated.of_class(label)
        if len(real) > 1 and len(fake) > 1:
            pooled[label] = real.moments()
            distances[label] = frechet_distance(pooled[label], fake.moments())

    def of_real(real: FeatureSet, other: FeatureSet) -> float | None:
        parts = [(real.of_class(label), other.of_class(label)) for label in distances]
        found = [_distance(*part) for part in parts if min(map(len, part)) > 1]
        return sum(found) / len(found) if found else None

    return distances, sets.of_floor(f"frechet of classes {list(distances)}", of_real) if distances else None


def _measure(_options: FrechetOptions, samples: Samples) -> ScoreReport | None:
    sets = samples.features
    if sets is None:
        return None
    score = frechet_score(sets)
    if samples.num_classes == 1:
        return ScoreReport((score,))
    distances, floor = frechet_of_classes(sets)
    if not distances:
        return ScoreReport((score,), ("  no class has two samples and two real images: no distance within classes",))
    values = torch.tensor(list(distances.values()), dtype=torch.float64)
    more = {"by_class": {str(label): distance for label, distance in distances.items()}}
    intra = Score(
        "intra_class_frechet_distance",
        f"intra-class {score.name}",
        values.mean().item(),
        None,
        floor,
        sets.counts,
        more=more,
    )
    worst = sorted(distances.items(), key=lambda item: -item[1])[:WORST_SHOWN]
    named = ", ".join(f"{class_name(samples.class_names, label)} {distance:.4g}" for label, distance in worst)
    return ScoreReport((score, intra), (f"    worst classes: {named}",))


FRECHET = Metric(name="frechet", options=FrechetOptions, measure=_measure)
