"""The latent distribution that a Config names: what may be asked for, and the prior that it stands for.

Tested in ``tests/engine/recipe/test_latent.py``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from gan_blocks import (
    AnnealedNormalPrior,
    BernoulliPrior,
    CategoricalPrior,
    CensoredNormalPrior,
    NormalBernoulliPrior,
    NormalPrior,
    Prior,
    RademacherPrior,
    SphericalPrior,
    SpikeAndSlabPrior,
    UniformPrior,
    VariableVariancePrior,
)
from gan_blocks.engine.base.checks import require, require_positive
from gan_blocks.engine.recipe.config import TrainingConfig

__all__ = ["LATENTS", "LatentFields", "LatentName", "latent_prior"]

LatentName = Literal[
    "normal",
    "uniform",
    "bernoulli",
    "censored-normal",
    "rademacher",
    "categorical",
    "spike-and-slab",
    "normal-bernoulli",
    "annealed-normal",
    "variable-variance",
    "spherical",
]
"""The type of ``--latent``: a distribution of z by its name, each a prior of the library."""


@dataclass(frozen=True)
class LatentFields(TrainingConfig):
    """What z is drawn from."""

    help_group: ClassVar[str] = "networks"

    latent_dim: int = 128
    """Dimension of z.

    In BigGAN's paper 32 lose little against 128, and as few as 8 can be trained.
    """
    # The first of the names is what there was before there was a choice: a saved Config without the field means it.
    latent: LatentName = "normal"
    """Distribution of z; only normal ones can be truncated.

    What BigGAN's paper saw (Appendix E):

    * normal N(0, I): the one used for its main results.
    * uniform U[-1, 1]: "performs similarly to N(0, I)".
    * bernoulli {0, 1}: "outperforms N(0, I) (in terms of IS) by 8% and requires 60% fewer iterations".
    * censored-normal max(N(0, I), 0): "outperforms N(0, I) (in terms of IS) by 15-20%", mostly in fewer iterations.
    * rademacher {-1, 1}, categorical {-1, 0, 1}: each "performs near-identically to N(0, I)".
    * spike-and-slab N(0, I) times Bernoulli {0, 1}: the same.
    * normal-bernoulli, one in each half of z: "outperforms N(0, I) by around 5%".
    * annealed-normal, its variance annealed from 2 toward 1: "mildly improved performance".
    * variable-variance, a variance for each sample: "did not appear to affect performance".
    * spherical: ProGAN's hypersphere, not in that study.
    """
    annealed_variances: tuple[float, ...] = (2.0, 1.0)
    """Variances that annealed-normal passes through.

    They stand at equal distances over the planned steps, with straight lines in between.
    """
    variable_variances: tuple[float, float] = (0.5, 1.5)
    """Smallest and largest variance of variable-variance.

    The paper gives none.
    """

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or the dimension does not suit the distribution.
        """
        super().__post_init__()
        require_positive(self, "latent_dim", "annealed_variances", "variable_variances")
        halved = self.latent == "normal-bernoulli"
        require(self, "latent_dim", not (halved and self.latent_dim % 2), "even beside --latent normal-bernoulli")
        finite = all(map(math.isfinite, self.annealed_variances))
        require(self, "annealed_variances", finite, "two or more finite numbers")
        low, high = self.variable_variances
        require(self, "variable_variances", low <= high < math.inf, "two finite numbers, the smaller one first")


def _annealed(config: LatentFields) -> Prior:
    variances, stretches = config.annealed_variances, len(config.annealed_variances) - 1
    # A run of fewer steps than there are stretches jumps over some of the variances.
    places = {config.planned_steps * number // stretches: value for number, value in enumerate(variances)}
    return AnnealedNormalPrior(config.latent_dim, milestones=tuple(places.items()))


def _variable(config: LatentFields) -> Prior:
    low, high = config.variable_variances
    return VariableVariancePrior(config.latent_dim, lowest_variance=low, highest_variance=high)


LATENTS: Mapping[LatentName, Callable[[LatentFields], Prior]] = {
    "normal": lambda config: NormalPrior(config.latent_dim),
    "uniform": lambda config: UniformPrior(config.latent_dim),
    "bernoulli": lambda config: BernoulliPrior(config.latent_dim),
    "censored-normal": lambda config: CensoredNormalPrior(config.latent_dim),
    "rademacher": lambda config: RademacherPrior(config.latent_dim),
    "categorical": lambda config: CategoricalPrior(config.latent_dim),
    "spike-and-slab": lambda config: SpikeAndSlabPrior(config.latent_dim),
    "normal-bernoulli": lambda config: NormalBernoulliPrior(config.latent_dim),
    "annealed-normal": _annealed,
    "variable-variance": _variable,
    "spherical": lambda config: SphericalPrior(config.latent_dim),
}
"""The distributions by the names of ``--latent``."""


def latent_prior(config: LatentFields) -> Prior:
    """The prior that a Config's latent fields name; drawn from as it is, it is the one that training ends with."""
    return LATENTS[config.latent](config)
