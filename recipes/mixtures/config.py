"""What is trained on a mixture of Gaussians: the grid, the networks' width, top-k training (Sinha et al. 2020).

Tested in ``tests/recipes/test_mixture_of_gaussians.py``.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gan_blocks import TopKSchedule
from gan_blocks.engine import Fields, require, require_positive, require_within

__all__ = ["Config"]


@dataclass(frozen=True)
class Config(Fields):
    """What is trained; fixed once a run has started."""

    modes: int = 25
    """Number of Gaussians: a square number, for they stand on a square grid."""
    spacing: float = 2.0
    """Distance between neighboring modes."""
    std: float = 0.05
    """Standard deviation of each Gaussian in both directions."""
    seeds: int = 1
    """How many seeds to train at once, from --seed on."""
    arms: Literal["both", "plain", "top-k"] = "both"
    """Plain training, top-k training, or both from the same weights on the same samples."""
    hidden_units: int = 256
    """Width of each of the four hidden layers of both networks."""
    latent_dim: int = 2
    """Dimension of z."""
    batch_size: int = 256
    """Samples in a batch."""
    learning_rate: float = 1e-4
    """Adam's learning rate for both networks."""
    top_k_gamma: float = 0.99
    """Factor by which k decays, greater than 0, at most 1."""
    top_k_floor: float = 0.75
    """Least k as a share of the batch."""
    top_k_period: int = 2000
    """Steps from one decay of k to the next."""
    planned_steps: int = 100_000
    """Length of the run, in updates of each network, unless --steps says otherwise."""
    evaluation_samples: int = 10_000
    """Samples of each generator that an evaluation looks at."""
    seed: int = 0
    """The first seed. All randomness is a function of the seed, the step and the purpose."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require(self, "modes", self.modes > 0 and math.isqrt(self.modes) ** 2 == self.modes, "a square number")
        require_positive(self, "spacing", "std", "seeds", "hidden_units", "latent_dim", "batch_size", "learning_rate")
        require_positive(self, "top_k_period", "planned_steps", "evaluation_samples")
        require(self, "top_k_gamma", 0 < self.top_k_gamma <= 1, "greater than 0 and at most 1")
        require(self, "top_k_floor", 0 < self.top_k_floor <= 1, "greater than 0 and at most 1")
        require_within(self, 0, 2**31, "seed")

    def schedule(self) -> TopKSchedule:
        """How k falls."""
        return TopKSchedule(
            batch_size=self.batch_size,
            gamma=self.top_k_gamma,
            floor_share=self.top_k_floor,
            decay_steps=self.top_k_period,
        )

    def centers(self) -> Tensor:
        """The modes, ``(modes, 2)``."""
        side = math.isqrt(self.modes)
        axis = (torch.arange(side) - (side - 1) / 2) * self.spacing
        return torch.cartesian_prod(axis, axis)

    def arm_names(self) -> tuple[str, ...]:
        """The arms in their order."""
        return ("plain", "top-k") if self.arms == "both" else (self.arms,)

    def all_seeds(self) -> range:
        """The seeds in their order."""
        return range(self.seed, self.seed + self.seeds)
