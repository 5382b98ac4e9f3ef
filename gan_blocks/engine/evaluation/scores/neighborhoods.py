"""Precision and recall, density and coverage: fidelity and variety apart.

Tested in ``tests/engine/evaluation/scores/test_scores.py``.
"""

from dataclasses import dataclass

import torch

from gan_blocks import NeighborhoodMembers, neighborhood_members, neighborhood_radii
from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.features.rows import FeatureSet
from gan_blocks.engine.evaluation.metric import Metric, Samples
from gan_blocks.engine.evaluation.scores.score import Counts, Score, ScoreReport, mean_interval, share_interval

__all__ = ["MOST_COMPARED", "NEIGHBORHOODS"]

MOST_COMPARED = 10_000  # of each set, since the time is the product
NAMES = "precision", "recall", "density", "coverage"


@dataclass(frozen=True)
class NeighborhoodOptions(Fields):
    """Precision, recall, density, coverage, which are measured wherever there are features."""


def _measure(_options: NeighborhoodOptions, samples: Samples) -> ScoreReport | None:
    sets = samples.features
    if sets is None:
        return None
    real, fake = (_chosen(each, sets.seed) for each in (sets.real, sets.generated))
    reach = sets.of_real(f"radii of {len(real)}", lambda: neighborhood_radii(real.features()).flatten().tolist())
    radii = torch.tensor(reach, dtype=torch.float64).reshape(-1, 2)
    members = neighborhood_members(real.features(), fake.features(), real_radii=radii)

    def of_real(some: FeatureSet, other: FeatureSet) -> list[float]:
        some, other = (_chosen(each, sets.seed) for each in (some, other))
        return _means(neighborhood_members(some.features(), other.features()))

    floor = sets.of_floor("neighborhoods", of_real)
    floor_real, floor_samples = (min(MOST_COMPARED, len(each)) for each in sets.floor)
    counts = Counts(len(fake), len(real), floor_samples, floor_real)
    scores = []
    for name, values, mean, of_others in zip(NAMES, members, _means(members), floor, strict=True):
        interval = mean_interval(values) if name == "density" else share_interval(values)
        scores.append(Score(name, f"{name}-{sets.network.name}", mean, interval, of_others, counts))
    details = []
    if max(len(sets.real), len(sets.generated)) > MOST_COMPARED:
        details = [f"    of at most {MOST_COMPARED:,} of each set, chosen by the seed"]
    return ScoreReport(tuple(scores), tuple(details))


def _chosen(features: FeatureSet, seed: int) -> FeatureSet:
    return features.chosen(MOST_COMPARED, random_stream(seed, "neighborhoods"))


def _means(members: NeighborhoodMembers) -> list[float]:
    return [values.double().mean().item() for values in members]


NEIGHBORHOODS = Metric(name="neighborhoods", options=NeighborhoodOptions, measure=_measure)
