"""What the scores of features below are made of: the network, how images get into it, how many there are.

Tested in ``tests/engine/evaluation/scores/test_scores.py``.
"""

from dataclasses import dataclass

from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.evaluation.features.choice import CLASSIFIER, parse_features
from gan_blocks.engine.evaluation.features.sets import check_feature_counts
from gan_blocks.engine.evaluation.features.trained import check_classes
from gan_blocks.engine.evaluation.metric import Metric, Plan, Samples
from gan_blocks.engine.evaluation.scores.score import Counts

__all__ = ["FEATURES", "FeatureReport"]


@dataclass(frozen=True)
class FeatureOptions(Fields):
    """Features, which are looked at where ``--features`` names a network."""


@dataclass(frozen=True)
class FeatureReport:
    """How features were made."""

    network: str
    side: int | None
    num_features: int
    digest: str
    counts: Counts
    held_out: bool
    """Whether the real images that give the floor were kept from the training."""
    seed: int

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        how = {"levels": 256, "resizing": "bicubic, antialiased", "color": "gray images as RGB"}
        made = {name: getattr(self, name) for name in ("network", "side", "num_features", "digest", "held_out", "seed")}
        return {"features": {**made, **how, **self.counts.as_dict()}}

    def lines(self) -> list[str]:
        """Render for a console of 100 columns."""
        counts = self.counts
        others = "held-out images" if self.held_out else "of them, set aside from the others"
        lines = [
            f"features {self.network}: {counts.samples:,} samples against {counts.real:,} real images; 95 % intervals;",
            f"  real: the same of {counts.floor_samples:,} {others}",
        ]
        if counts.samples <= self.num_features:
            few = f"only {counts.samples:,} samples of {self.num_features:,} features"
            lines.append(f"  {few}: most of a Fréchet distance is bias; compare only at equal numbers of samples")
        return lines


def _check(_options: FeatureOptions, plan: Plan) -> None:
    if plan.features is None:
        return
    if parse_features(plan.features).kind == CLASSIFIER:
        check_classes(len(plan.real.labels.unique()))
    held_out = None if plan.held_out is None else len(plan.held_out)
    option = "--num" if plan.given is None else "the number of --images"
    check_feature_counts(plan.num, len(plan.real), held_out=held_out, option=option)


def _measure(_options: FeatureOptions, samples: Samples) -> FeatureReport | None:
    sets = samples.features
    if sets is None:
        return None
    network, held_out = sets.network, sets.held_out is not None
    return FeatureReport(
        network.name, network.side, network.num_features, network.digest, sets.counts, held_out, sets.seed
    )


FEATURES = Metric(name="features", options=FeatureOptions, measure=_measure, check=_check)
