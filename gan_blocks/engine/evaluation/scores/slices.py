"""The sliced Wasserstein distance of features: how far apart their shadows on random lines are.

Tested in ``tests/engine/evaluation/scores/test_scores.py``.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.features.rows import FeatureSet
from gan_blocks.engine.evaluation.metric import Metric, Samples
from gan_blocks.engine.evaluation.scores.score import Counts, Score, ScoreReport

__all__ = ["SLICES", "sliced_distances"]

MOST = 10_000  # of each set; equal numbers are compared
DIRECTIONS, REPEATS = 128, 4  # as ProGAN's distance of patches has them


@dataclass(frozen=True)
class SliceOptions(Fields):
    """The sliced Wasserstein distance of features, which is measured wherever there are some."""


def sliced_distances(real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """Mean absolute difference of sorted projections of two sets of equal size, for each of four sets of directions."""
    distances = []
    for _ in range(REPEATS):
        directions = F.normalize(torch.randn(DIRECTIONS, real.shape[1], generator=generator), dim=1)
        shadows = [(features @ directions.mT).sort(dim=0).values for features in (real, fake)]
        distances.append((shadows[0] - shadows[1]).double().abs().mean())
    return torch.stack(distances)


def _measure(_options: SliceOptions, samples: Samples) -> ScoreReport | None:
    sets = samples.features
    if sets is None:
        return None
    # As many of the floor as of the samples, since the distance depends on the number.
    count = min(MOST, *map(len, (sets.generated, sets.real, *sets.floor)))

    def distances(real: FeatureSet, other: FeatureSet) -> Tensor:
        chosen = [
            each.chosen(count, random_stream(sets.seed, "sliced features", name)).features()
            for each, name in ((real, "real"), (other, "generated"))
        ]
        return sliced_distances(chosen[0], chosen[1], random_stream(sets.seed, "sliced features", "directions"))

    found = distances(sets.real, sets.generated)
    floor = sets.of_floor(f"slices {count}", lambda real, other: distances(real, other).mean().item())
    more = {"standard_deviation": found.std().item(), "directions": DIRECTIONS * REPEATS}
    counts = Counts(count, count, count, count)
    score = Score(
        "sliced_feature_distance", f"SD-{sets.network.name}", found.mean().item(), None, floor, counts, more=more
    )
    return ScoreReport((score,))


SLICES = Metric(name="slices", options=SliceOptions, measure=_measure)
