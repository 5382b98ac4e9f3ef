"""Limits on the largest singular values of both networks (Brock et al. 2018, section 4).

The paper bounded them in several ways to find out what makes large GANs collapse: the generator's to no avail, the
discriminator's at the cost of quality.

Tested in ``tests/recipes/studies/test_singular_values.py``.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gan_blocks import clamp_sigma, sigma_regularization, spectral_norm
from gan_blocks.engine import Fields, require, require_positive
from recipes.families.layers import LayerFactories
from recipes.families.regularization import require_coefficients

__all__ = ["SpectralFields", "limited_layers", "sigma_penalty"]

Network = Literal["generator", "discriminator"]
NETWORKS: tuple[Network, ...] = ("generator", "discriminator")
PENALTIES = tuple(f"{name}_sigma_penalty" for name in NETWORKS)


@dataclass(frozen=True)
class SpectralFields(Fields):
    """What a Config may ask of the singular values of G and D; 0 is off for all but the first."""

    help_group: ClassVar[str] = "singular values"

    tracked_singular_values: int = 1
    """Singular values that spectral norm follows; the first divides, a penalty ratio needs the second."""
    generator_sigma_clamp: float = 0.0
    """Clamp the largest singular value of each raw weight of G to this (equation 4); 0: no clamp."""
    generator_sigma_clamp_ratio: float = 0.0
    """Clamp that of G to this multiple of the second largest one instead, at least 1; 0: no clamp."""
    discriminator_sigma_clamp: float = 0.0
    """Clamp the largest singular value of each raw weight of D to this (equation 4); 0: no clamp."""
    discriminator_sigma_clamp_ratio: float = 0.0
    """Clamp that of D to this multiple of the second largest one instead, at least 1; 0: no clamp."""
    generator_sigma_penalty: float = 0.0
    """Coefficient, in G's loss, of the squared distance of its largest singular values from their aim; 0: none."""
    discriminator_sigma_penalty: float = 0.0
    """Coefficient, in D's loss, of the squared distance of its largest singular values from their aim; 0: none."""
    sigma_penalty_target: float = 0.0
    """The aim of the sigma penalties as a number; 0: it is given as a ratio, or there is no penalty."""
    sigma_penalty_ratio: float = 0.0
    """The aim of the sigma penalties as a multiple of the second largest singular value; 0: it is given as a number."""

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or two of them do not go together.
        """
        super().__post_init__()
        require_positive(self, "tracked_singular_values")
        clamps = [(f"{name}_sigma_clamp", f"{name}_sigma_clamp_ratio") for name in NETWORKS]
        numbers = [*(field for pair in clamps for field in pair), *PENALTIES]
        require_coefficients(self, *numbers, "sigma_penalty_target", "sigma_penalty_ratio")
        for clamp, ratio in clamps:
            both = getattr(self, clamp) > 0 and getattr(self, ratio) > 0
            require(self, ratio, getattr(self, ratio) == 0 or getattr(self, ratio) >= 1, "0 or at least 1")
            require(self, ratio, not both, f"0 beside {_option(clamp)}, since a weight has one clamp")
        _check_penalty(self)


def limited_layers(network: Network, config: SpectralFields, *, eps: float) -> LayerFactories:
    """Orthogonal layers with spectral norm, of G or of D, whose raw weights have that network's clamp.

    A weight of but one singular value has none that its first could be a multiple of, and no clamp by ratio.
    """
    clamp: float = getattr(config, f"{network}_sigma_clamp")
    ratio: float = getattr(config, f"{network}_sigma_clamp_ratio")

    def normalize(layer: nn.Module) -> nn.Module:
        weight = layer.get_parameter("weight")
        rank = min(weight.shape[0], weight[0].numel())
        if clamp:
            clamp_sigma(layer, maximum=clamp)
        elif ratio and rank > 1:
            clamp_sigma(layer, ratio=ratio)
        return spectral_norm(layer, num_singular_values=min(config.tracked_singular_values, rank), eps=eps)

    return LayerFactories(normalize)


def sigma_penalty(name: Network, network: nn.Module, config: SpectralFields) -> Tensor:
    """What is added to the loss of G or of D: its coefficient times the distance of its singular values."""
    coefficient: float = getattr(config, f"{name}_sigma_penalty")
    if not coefficient:
        return torch.zeros(())  # a scalar of the CPU adds to a loss on any device
    target, ratio = config.sigma_penalty_target or None, config.sigma_penalty_ratio or None
    return coefficient * sigma_regularization(network, target=target, ratio=ratio)


def _check_penalty(config: SpectralFields) -> None:
    target, ratio = config.sigma_penalty_target, config.sigma_penalty_ratio
    penalties = [field for field in PENALTIES if getattr(config, field)]
    if not penalties:
        unused = f"0 without {' or '.join(map(_option, PENALTIES))}"
        require(config, "sigma_penalty_target", target == 0, unused)
        require(config, "sigma_penalty_ratio", ratio == 0, unused)
        return
    either = "greater than 0 for a penalty, or --sigma-penalty-ratio instead (one of the two)"
    require(config, "sigma_penalty_target", (target > 0) != (ratio > 0), either)
    if ratio:
        require(config, "tracked_singular_values", config.tracked_singular_values > 1, "at least 2 for a penalty ratio")


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"
