"""What a Config may add to the adversarial losses and do to their gradients: the regularizers of BigGAN, all off."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from gan_blocks import (
    SharedEmbedding,
    lazy_coefficient,
    off_diagonal_penalty,
    orthogonal_penalty,
    orthogonal_regularization,
    select_top_k_pairs,
    zero_centered_penalty,
)
from gan_blocks.engine import (
    Fields,
    PairBatch,
    TrainingState,
    UserError,
    fake_images_of,
    require,
    require_positive,
    score_pair,
    score_separately,
)

__all__ = [
    "RegularizationFields",
    "clip_gradients",
    "discriminator_weight_penalty",
    "embedding_norms",
    "generator_weight_penalty",
    "score_pair_with_r1",
]


@dataclass(frozen=True)
class RegularizationFields(Fields):
    """Regularizers of weights, gradients and features; what the paper saw of each is in its help."""

    generator_orthogonal_penalty: float = 0.0
    """Coefficient of equation 3 in G's loss (paper: 1e-4; 60% of models bear truncation with it, 16% without)."""
    discriminator_orthogonal_penalty: float = 0.0
    """The same in D's loss (paper: enough of it stabilises, at a substantial cost to performance); 0: none."""
    orthogonal_equation: Literal[2, 3] = 3
    """3 makes filters orthogonal; 2 also holds their length at 1 (paper: often too limiting)."""
    r1_penalty: float = 0.0
    """Strength of R1 on D (paper: above 0.5 stable; 1 costs 20% of the Inception Score, 10 costs 45%); 0: none."""
    r1_interval: int = 1
    """Compute R1 once every so many updates of D, and as many times as strong: cheaper, the same on average."""
    discriminator_l2_penalty: float = 0.0
    """Coefficient of half D's squared parameters in its loss (paper: enough of it stabilises, at a cost); 0: none."""
    embedding_weight_decay: float = 0.0
    """Coefficient of half G's squared class embeddings in its loss (paper: 1e-6 hurts, 1e-8 does nothing); 0: none."""
    gradient_clip: float = 0.0
    """Shorten gradients to this norm at most (paper: does not alleviate instability); 0: no clipping."""
    gradient_clip_scope: Literal["network", "parameter"] = "network"
    """What has that norm: the whole gradient of a network, or that of each of its parameters."""
    discriminator_dropout: float = 0.0
    """Share of D's last features dropped in training (paper: 0.2 stabilises, but the Inception Score ends at 70)."""

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or two of them do not go together.
        """
        super().__post_init__()
        orthogonal = ("generator_orthogonal_penalty", "discriminator_orthogonal_penalty")
        numbers = ("r1_penalty", "discriminator_l2_penalty", "embedding_weight_decay", "gradient_clip")
        for field in (*orthogonal, *numbers):
            require(self, field, 0 <= getattr(self, field) < math.inf, "a finite number of at least 0")
        require_positive(self, "r1_interval")
        require(self, "r1_interval", self.r1_interval == 1 or self.r1_penalty > 0, "1 without --r1-penalty")
        used = any(getattr(self, field) for field in orthogonal)
        unused = "3 without --generator-orthogonal-penalty or --discriminator-orthogonal-penalty"
        require(self, "orthogonal_equation", self.orthogonal_equation == 3 or used, unused)
        clips = self.gradient_clip_scope == "network" or self.gradient_clip > 0
        require(self, "gradient_clip_scope", clips, "network without --gradient-clip")
        require(self, "discriminator_dropout", 0 <= self.discriminator_dropout < 1, "at least 0 and less than 1")


def generator_weight_penalty(generator: nn.Module, config: RegularizationFields) -> Tensor:
    """What G's loss has of its weights: orthogonal regularization, decay of the class embedding.

    Tables of classes are no filters: the shared embedding stays out of the first, as in the paper, and so do the gains
    and biases that each class has in SA-GAN.

    Raises:
        UserError: If a class embedding that G does not have is to decay.
    """
    embeddings = _shared_embeddings(generator)
    tables = [module for module in generator.modules() if getattr(module, "class_tables", ())]
    penalty = _orthogonal(generator, config.generator_orthogonal_penalty, config, exclude=tables)
    if config.embedding_weight_decay:
        if not embeddings:
            raise UserError("--embedding-weight-decay must be 0, since this generator has no shared class embedding.")
        squares = [embedding.weight.square().sum() for embedding in embeddings]
        penalty = penalty + config.embedding_weight_decay / 2 * torch.stack(squares).sum()
    return penalty


def discriminator_weight_penalty(discriminator: nn.Module, config: RegularizationFields) -> Tensor:
    """What D's loss has of its weights: orthogonal regularization, L2.

    The paper leaves open which parameters L2 takes; here it is all of them, weights as the optimizer sees them.
    """
    penalty = _orthogonal(discriminator, config.discriminator_orthogonal_penalty, config)
    if config.discriminator_l2_penalty:
        squares = [parameter.square().sum() for parameter in discriminator.parameters()]
        penalty = penalty + config.discriminator_l2_penalty / 2 * torch.stack(squares).sum()
    return penalty


def score_pair_with_r1(
    state: TrainingState, part: PairBatch, config: RegularizationFields
) -> tuple[Tensor, Tensor, Tensor | float]:
    """D's logits of real and of generated images, and what R1 adds to the loss in the updates that are due.

    Where it is due, the two are judged in calls of their own: only that of the real images needs the slower kernels
    which can be differentiated twice.
    """
    gamma = lazy_coefficient(config.r1_penalty, interval=config.r1_interval, update=part.update)
    if not gamma:
        return *score_pair(state, part), 0.0
    real_images = part.real_images.detach().requires_grad_()
    whole = replace(part, real_images=real_images, fake=replace(part.fake, k=None))
    real_logits, fake_logits = score_separately(state, whole, fake_images_of(state, part))
    penalty = zero_centered_penalty(real_images, real_logits, gamma)
    if part.fake.k is not None:  # a study applies top-k to D; every image counts in R1
        real_logits, fake_logits = select_top_k_pairs(real_logits=real_logits, fake_logits=fake_logits, k=part.fake.k)
    return real_logits, fake_logits, penalty


def clip_gradients(network: nn.Module, config: RegularizationFields) -> None:
    """Shorten the gradients of a network where the Config asks for that; for ``before_step=``."""
    if not config.gradient_clip:
        return
    parameters = list(network.parameters())
    groups = [parameters] if config.gradient_clip_scope == "network" else [[parameter] for parameter in parameters]
    for group in groups:
        nn.utils.clip_grad_norm_(group, config.gradient_clip)


@torch.no_grad()
def embedding_norms(generator: nn.Module) -> dict[str, Tensor]:
    """The median and the largest norm of G's class embeddings, for the log; nothing if it has none.

    Classes that collapsed to one or two samples had embeddings that had grown far beyond the others (Appendix H).
    """
    norms = [embedding.weight.norm(dim=1) for embedding in _shared_embeddings(generator)]
    if not norms:
        return {}
    every = torch.cat(norms).float()
    return {"embedding_norm_median": every.median(), "embedding_norm_largest": every.max()}


def _shared_embeddings(generator: nn.Module) -> list[SharedEmbedding]:
    return [module for module in generator.modules() if isinstance(module, SharedEmbedding)]


def _orthogonal(
    network: nn.Module, coefficient: float, config: RegularizationFields, exclude: Iterable[nn.Module] = ()
) -> Tensor:
    if not coefficient:
        return torch.zeros(())  # a scalar of the CPU adds to a loss on any device
    penalty = off_diagonal_penalty if config.orthogonal_equation == 3 else orthogonal_penalty
    return coefficient * orthogonal_regularization(network, penalty=penalty, exclude=exclude)
