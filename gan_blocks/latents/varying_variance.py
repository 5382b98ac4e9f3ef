"""Normal priors whose variance is not the same all the time: over training, or from sample to sample.

Tested in ``tests/latents/test_priors.py``.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from gan_blocks._checks import bad_value, check_positive
from gan_blocks.latents._draws import Draws
from gan_blocks.latents.priors import NormalPrior, Prior

__all__ = ["AnnealedNormalPrior", "VariableVariancePrior"]


@dataclass(frozen=True)
class AnnealedNormalPrior(Prior):
    r"""A normal prior whose variance follows a piecewise linear schedule over training ("variance annealing").

    .. math:: z \sim \mathcal{N}(0, \sigma_t I)

    :meth:`at` gives the :class:`NormalPrior` of a training step. Drawn from as it is, it is the one that training ends
    with, :attr:`final`: that is what samples are drawn from, and what may be truncated.

    Found in the paper: of the piecewise schedules tried, a variance of 2 annealed toward 1 over the course of training
    mildly improved performance.

    Args:
        dim: Number of components of z, at least 1.
        milestones: ``(step, variance)`` pairs in the order of the steps: at each step the variance :math:`\sigma_t`,
            linear in between, constant before the first and after the last. Two neighboring steps make a jump. Lists,
            as JSON has them, become tuples.

    Raises:
        ValueError: If ``dim`` or a variance is not positive and finite, there are no milestones, or their steps do not
            increase.

    References:
        Brock et al. 2018, Appendix E.

    Example:
        >>> prior = AnnealedNormalPrior(128, milestones=((0, 2.0), (1000, 1.0)))
        >>> [prior.at(step).variance[0].item() for step in (0, 1000, 5000)]
        [2.0000000000000004, 1.0, 1.0]
        >>> prior.final
        NormalPrior(dim=128, std=1.0)
    """

    milestones: tuple[tuple[int, float], ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        # Lists would be unequal to the same tuples, and cannot be hashed.
        object.__setattr__(self, "milestones", tuple((step, variance) for step, variance in self.milestones))
        steps = [step for step, _ in self.milestones]
        if not steps or not all(later > earlier for earlier, later in pairwise(steps)):
            rule = "one or more (step, variance) pairs with increasing steps"
            raise bad_value("AnnealedNormalPrior", "milestones", rule, self.milestones)
        if not all(0 < variance < math.inf for _, variance in self.milestones):
            rule = "(step, variance) pairs with variances greater than 0 and finite"
            raise bad_value("AnnealedNormalPrior", "milestones", rule, self.milestones)

    def at(self, step: int) -> NormalPrior:
        """The normal prior of a training step.

        Args:
            step: The training step.
        """
        return NormalPrior(self.dim, std=math.sqrt(self._variance_at(step)))

    @property
    def final(self) -> NormalPrior:
        """The normal prior that training ends with."""
        return self.at(self.milestones[-1][0])

    def _variance_at(self, step: int) -> float:
        first_step, first_variance = self.milestones[0]
        if step <= first_step:
            return first_variance
        for (before, variance), (after, following) in pairwise(self.milestones):
            if step < after:
                return variance + (following - variance) * (step - before) / (after - before)
        return self.milestones[-1][1]

    def _sample(self, draws: Draws) -> Tensor:
        return self.final._sample(draws)

    @property
    def support(self) -> tuple[float, float]:
        """The real line."""
        return self.final.support

    @property
    def mean(self) -> Tensor:
        """Zero for each component, ``(dim,)`` in float64."""
        return self.final.mean

    @property
    def variance(self) -> Tensor:
        """The last variance of the schedule for each component, ``(dim,)`` in float64."""
        return self.final.variance


@dataclass(frozen=True)
class VariableVariancePrior(Prior):
    r"""Normal samples, each with a variance of its own: "per-sample variable variance".

    .. math:: z_i \sim \mathcal{N}(0, \sigma_i I), \qquad \sigma_i \sim \mathcal{U}[\sigma_l, \sigma_h]

    The components of a sample share its variance: they are uncorrelated, but not independent. As in the paper,
    :math:`\sigma_i` is a variance, not a standard deviation.

    The idea: a generator that has seen latents of many scales may bear truncation better.

    Found in the paper: no visible effect, without a deep search. It names no values of the bounds.

    Args:
        dim: Number of components of z, at least 1.
        lowest_variance: The lower bound :math:`\sigma_l`, greater than 0.
        highest_variance: The upper bound :math:`\sigma_h`, at least the lower one.

    Raises:
        ValueError: If ``dim`` or a bound is not positive, or the bounds are in the wrong order.

    References:
        Brock et al. 2018, Appendix E.

    Example:
        >>> VariableVariancePrior(128, lowest_variance=0.5, highest_variance=1.5).variance[0].item()
        1.0
    """

    lowest_variance: float = field(kw_only=True)
    highest_variance: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(type(self).__name__, lowest_variance=self.lowest_variance)
        if not self.lowest_variance <= self.highest_variance < math.inf:
            rule = f"finite and at least lowest_variance={self.lowest_variance}"
            raise bad_value(type(self).__name__, "highest_variance", rule, self.highest_variance)

    def _sample(self, draws: Draws) -> Tensor:
        z = draws.normal(self.dim)
        variance = self.lowest_variance + (self.highest_variance - self.lowest_variance) * draws.uniform(1)
        return z * variance.sqrt().to(draws.dtype)

    @property
    def support(self) -> tuple[float, float]:
        """The real line."""
        return -math.inf, math.inf

    @property
    def mean(self) -> Tensor:
        """Zero for each component, ``(dim,)`` in float64."""
        return self._for_each_component(0)

    @property
    def variance(self) -> Tensor:
        """The mean of both bounds for each component, ``(dim,)`` in float64."""
        return self._for_each_component((self.lowest_variance + self.highest_variance) / 2)
