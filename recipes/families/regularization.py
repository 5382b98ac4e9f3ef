"""What a Config may add to the adversarial losses: orthogonal regularization and R1, both off by default.

What the paper tried beside them and gave up is in ``recipes/studies/appendix_h.py``. Tested in
``tests/recipes/families/test_regularization.py``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gan_blocks import (
    SharedEmbedding,
    lazy_coefficient,
    off_diagonal_penalty,
    orthogonal_regularization,
    zero_centered_penalty,
)
from gan_blocks.engine import (
    Fields,
    PairBatch,
    TrainingState,
    fake_images_of,
    require,
    require_positive,
    score_pair,
    score_separately,
)

__all__ = [
    "RegularizationFields",
    "embedding_norms",
    "generator_weight_penalty",
    "orthogonal_term",
    "require_coefficients",
    "score_pair_with_r1",
]


@dataclass(frozen=True)
class RegularizationFields(Fields):
    """Regularizers of weights and gradients."""

    help_group: ClassVar[str] = "regularizers"
    moved_fields: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "recipes.studies.appendix_h": {
            "discriminator_orthogonal_penalty": 0.0,
            "orthogonal_equation": 3,
            "discriminator_l2_penalty": 0.0,
            "embedding_weight_decay": 0.0,
            "gradient_clip": 0.0,
            "gradient_clip_scope": "network",
            "discriminator_dropout": 0.0,
            "hinge_margin": 1.0,
            "tracked_singular_values": 1,
            "generator_sigma_clamp": 0.0,
            "generator_sigma_clamp_ratio": 0.0,
            "discriminator_sigma_clamp": 0.0,
            "discriminator_sigma_clamp_ratio": 0.0,
            "generator_sigma_penalty": 0.0,
            "discriminator_sigma_penalty": 0.0,
            "sigma_penalty_target": 0.0,
            "sigma_penalty_ratio": 0.0,
        }
    }

    generator_orthogonal_penalty: float = 0.0
    """Coefficient of equation 3 in G's loss (paper: 1e-4; 60% of models bear truncation with it, not 16%)."""
    r1_penalty: float = 0.0
    """Strength of R1 on D (paper: stable above 0.5; 1 costs 20% of the Inception Score, 10 costs 45%)."""
    r1_interval: int = 1
    """Apply R1 in one of this many updates, as many times as strong."""

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or two of them do not go together.
        """
        super().__post_init__()
        require_coefficients(self, "generator_orthogonal_penalty", "r1_penalty")
        require_positive(self, "r1_interval")
        require(self, "r1_interval", self.r1_interval == 1 or self.r1_penalty > 0, "1 without --r1-penalty")


def require_coefficients(config: Fields, *fields: str) -> None:
    """Each field must be finite and at least 0."""
    for field in fields:
        require(config, field, 0 <= getattr(config, field) < math.inf, "a finite number of at least 0")


def generator_weight_penalty(generator: nn.Module, config: RegularizationFields) -> Tensor:
    """What G's loss has of its weights: orthogonal regularization (equation 3).

    Tables of classes are no filters: the shared embedding stays out, as in published code, and so do the gains and
    biases that each class has in SA-GAN.
    """
    return orthogonal_term(generator, config.generator_orthogonal_penalty)


def orthogonal_term(
    network: nn.Module, coefficient: float, penalty: Callable[[Tensor], Tensor] = off_diagonal_penalty
) -> Tensor:
    """A coefficient times a penalty, equation 3, of all weights but tables of classes."""
    if not coefficient:
        return torch.zeros(())  # a scalar of the CPU adds to a loss on any device
    tables = [
        parameter
        for module in network.modules()
        for name in getattr(module, "class_tables", ())
        for parameter in _parameters_of(module, name)
    ]
    return coefficient * orthogonal_regularization(network, penalty=penalty, exclude=tables)


def _parameters_of(layer: nn.Module, name: str) -> list[nn.Parameter]:
    """What the optimizer moves of one tensor of a layer."""
    if is_parametrized(layer, name):
        return list(layer.get_submodule(f"parametrizations.{name}").parameters())
    return [parameter for own, parameter in layer.named_parameters(recurse=False) if own == name]


def score_pair_with_r1(
    state: TrainingState, part: PairBatch, config: RegularizationFields
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """D's logits of real and of generated images, and what R1 adds to the loss by name: 0 in updates that are not due.

    Where it is due, the two are judged in calls of their own: only that of the real images needs the slower kernels
    which can be differentiated twice.
    """
    gamma = lazy_coefficient(config.r1_penalty, interval=config.r1_interval, update=part.update)
    if not gamma:
        real_logits, fake_logits = score_pair(state, part)
        return real_logits, fake_logits, {"r1_penalty": real_logits.new_zeros(())} if config.r1_penalty else {}
    part = replace(part, real_images=part.real_images.detach().requires_grad_())
    real_logits, fake_logits = score_separately(state, part, fake_images_of(state, part))
    return real_logits, fake_logits, {"r1_penalty": zero_centered_penalty(part.real_images, real_logits, gamma)}


@torch.no_grad()
def embedding_norms(generator: nn.Module) -> dict[str, Tensor]:
    """The median and the largest norm of G's class embeddings, for the log; nothing if it has none.

    Classes that collapsed to one or two samples had embeddings that had grown far beyond the others (Appendix H).
    """
    tables = [module.weight for module in generator.modules() if isinstance(module, SharedEmbedding)]
    if not tables:
        return {}
    every = torch.cat([table.norm(dim=1) for table in tables]).float()
    return {"embedding_norm_median": every.median(), "embedding_norm_largest": every.max()}
