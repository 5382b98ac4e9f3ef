"""The kernel distance of features, which few samples do not bias.

Tested in ``tests/engine/evaluation/scores/test_scores.py``.
"""

from dataclasses import dataclass

from gan_blocks import KernelDistance, kernel_distance
from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.features.rows import FeatureSet
from gan_blocks.engine.evaluation.features.sets import FeatureSets
from gan_blocks.engine.evaluation.metric import Metric, Samples
from gan_blocks.engine.evaluation.scores.score import CONFIDENT, Score, ScoreReport

__all__ = ["KERNEL", "kernel_score"]

SUBSET, SUBSETS = 1000, 100  # the paper's
FLOOR_SUBSETS = 20
MOST = 10_000  # of each set are in memory: subsets of more would differ hardly


@dataclass(frozen=True)
class KernelOptions(Fields):
    """The kernel distance, which is measured wherever there are features."""


def kernel_score(sets: FeatureSets) -> Score:
    """The mean over random subsets, with an interval by the scatter of these.

    Subsets of m of n samples share samples: their variance is that of an estimate from n, times (n - m) / m. The mean
    over the subsets adds an error of its own.
    """
    smallest = min(len(sets.generated), len(sets.real), MOST)
    subset = max(2, min(SUBSET, smallest // 2))
    found = _distance(sets.real, sets.generated, subset, SUBSETS, sets.seed)
    error = CONFIDENT * found.standard_deviation * (subset / (smallest - subset) + 1 / SUBSETS) ** 0.5

    def of_real(real: FeatureSet, other: FeatureSet) -> float:
        size = max(2, min(subset, len(other) // 2))
        return _distance(real, other, size, FLOOR_SUBSETS, sets.seed).mean

    more = {"standard_deviation": found.standard_deviation, "subset_size": subset, "num_subsets": SUBSETS}
    return Score(
        "kernel_distance",
        f"KD-{sets.network.name}",
        found.mean,
        (found.mean - error, found.mean + error),
        sets.of_floor(f"kernel {subset}", of_real),
        sets.counts,
        scale=1000,
        more=more,
    )


def _distance(real: FeatureSet, fake: FeatureSet, size: int, subsets: int, seed: int) -> KernelDistance:
    chosen = [
        part.chosen(MOST, random_stream(seed, "kernel distance", name)).features()
        for part, name in ((real, "real"), (fake, "generated"))
    ]
    stream = random_stream(seed, "kernel distance", "subsets")
    return kernel_distance(*chosen, subset_size=size, num_subsets=subsets, generator=stream)


def _measure(_options: KernelOptions, samples: Samples) -> ScoreReport | None:
    if samples.features is None:
        return None
    score = kernel_score(samples.features)
    more = score.more or {}
    deviation = f"s.d. {score.scale * more['standard_deviation']:.3g}"
    return ScoreReport((score,), (f"    mean of {SUBSETS} subsets of {more['subset_size']:,}, {deviation}",))


KERNEL = Metric(name="kernel", options=KernelOptions, measure=_measure)
