"""What is trained on a mixture of Gaussians: the grid, the networks' width, top-k training (Sinha et al. 2020).

Tested in ``tests/recipes/test_mixture_of_gaussians.py``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gan_blocks import TopKSchedule
from gan_blocks.engine import Fields, require, require_positive, require_within

__all__ = ["OF_OLDER_RUNS", "Config"]

OF_OLDER_RUNS: Mapping[str, Any] = {
    "divide_by": "nothing",
    "hidden_layers": 4,
    "init": "torch",
    "activation": "relu",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
}
"""What runs did that were begun before these were fields of the Config."""


@dataclass(frozen=True)
class Config(Fields):
    """What is trained; fixed once a run has started."""

    modes: int = 25
    """Number of Gaussians: a square number, for they stand on a square grid."""
    spacing: float = 2.0
    """Distance between neighboring modes, before it is divided by what --divide-by says."""
    std: float = 0.05
    """Standard deviation of each Gaussian in both directions; divided alike."""
    divide_by: Literal["nothing", "2.828", "deviation"] = "2.828"
    """What spacing and std are divided by: nothing; 2.828, as in the toy code of the Wasserstein GAN papers; or the
    standard deviation of all data, so that it is 1."""
    seeds: int = 1
    """How many seeds to train at once, from --seed on."""
    arms: Literal["both", "plain", "top-k"] = "both"
    """Plain training, top-k training, or both from the same weights on the same samples."""
    hidden_units: int = 256
    """Width of each hidden layer of both networks."""
    hidden_layers: int = 4
    """Hidden layers of both networks: 4 as the paper's "4-layer MLPs" is read, 3 if that counts the output, too."""
    init: Literal["torch", "he"] = "torch"
    """Weights to start from: torch's; or He's, Glorot's in the last layer, with biases of 0, as in the toy code of the
    Wasserstein GAN papers."""
    activation: Literal["relu", "leaky-relu", "tanh"] = "relu"
    """What follows each hidden layer; leaky-relu has slope 0.2 below zero."""
    latent_dim: int = 2
    """Dimension of z."""
    batch_size: int = 256
    """Samples in a batch."""
    learning_rate: float = 1e-4
    """Adam's learning rate for both networks."""
    adam_beta1: float = 0.9
    """Adam's decay rate of the mean gradient, for both networks."""
    adam_beta2: float = 0.999
    """Adam's decay rate of the mean squared gradient, for both networks."""
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
        require_positive(self, "hidden_layers", "top_k_period", "planned_steps", "evaluation_samples")
        for beta in ("adam_beta1", "adam_beta2"):
            require(self, beta, 0 <= getattr(self, beta) < 1, "at least 0 and less than 1")
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

    def scale(self) -> float:
        """What multiplies the grid and the Gaussians."""
        if self.divide_by == "deviation":  # of one coordinate; that of equally spaced points, and of a Gaussian
            return 1 / math.hypot(self.spacing * math.sqrt((self.modes - 1) / 12), self.std)
        return 1 / float(self.divide_by) if self.divide_by == "2.828" else 1.0

    def mode_std(self) -> float:
        """Standard deviation of a mode of the data."""
        return self.std * self.scale()

    def centers(self) -> Tensor:
        """The modes, ``(modes, 2)``."""
        side = math.isqrt(self.modes)
        axis = (torch.arange(side) - (side - 1) / 2) * (self.spacing * self.scale())
        return torch.cartesian_prod(axis, axis)

    def arm_names(self) -> tuple[str, ...]:
        """The arms in their order."""
        return ("plain", "top-k") if self.arms == "both" else (self.arms,)

    def all_seeds(self) -> range:
        """The seeds in their order."""
        return range(self.seed, self.seed + self.seeds)
