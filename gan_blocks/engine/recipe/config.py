"""Fields that the Configs of several recipes share, as frozen dataclasses to inherit from, with their checks.

A recipe's Config inherits the groups that its system has and adds its networks. The defaults are those of the small
presets; a preset states what it needs otherwise.

Tested in ``tests/engine/recipe/test_recipe.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from gan_blocks.engine.base.checks import (
    Fields,
    require,
    require_at_least,
    require_positive,
    require_within,
)
from gan_blocks.engine.data.config import ImageFields

__all__ = [
    "AdamFields",
    "TopKFields",
    "TrainingConfig",
]

MOST_BATCHES = 1_000_000  # of standing statistics: a bound on the time that a typing error takes


@dataclass(frozen=True)
class AdamFields(Fields):
    """One Adam optimizer for each network."""

    help_group: ClassVar[str] = "optimization"

    generator_lr: float = 1.5e-3
    """Adam's learning rate for G."""
    discriminator_lr: float = 1e-3
    """Adam's learning rate for D."""
    adam_beta1: float = 0.0
    """Adam's decay rate of the mean of gradients."""
    adam_beta2: float = 0.999
    """Adam's decay rate of the mean of their squares."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_at_least(self, 0, "generator_lr", "discriminator_lr")  # a ramp may end at 0
        for beta in ("adam_beta1", "adam_beta2"):
            require(self, beta, 0 <= getattr(self, beta) < 1, "at least 0 and less than 1")


@dataclass(frozen=True)
class TopKFields(Fields):
    """Top-k training (Sinha et al. 2020)."""

    help_group: ClassVar[str] = "regularizers"
    moved_fields: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "recipes.studies.top_k_players": {"top_k_players": "generator"}
    }

    top_k_gamma: float = 1.0
    """G learns from the k samples that D scores best; k falls by this factor each epoch; 1: from all."""
    top_k_floor: float = 0.5
    """Smallest k: share of the batch, or number above 1."""
    top_k_decay_images: int = 0
    """Real images between two decays of k; 0: an epoch."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require(self, "top_k_gamma", 0 < self.top_k_gamma <= 1, "greater than 0 and at most 1")
        require_at_least(self, 0, "top_k_decay_images")


@dataclass(frozen=True)
class TrainingConfig(TopKFields, ImageFields):
    """What every Config says: the images, and the course of a training: batches, updates, averaging, length."""

    help_group: ClassVar[str] = "optimization"

    batch_size: int = 16
    """Images in a batch, over all micro-batches."""
    discriminator_steps: int = 2
    """Updates of D for each update of G.

    BigGAN's paper found 2 best for ImageNet, of 1 to 6; with 1, digits of a class look alike.
    """
    ema_decay: float = 0.98
    """Decay of G's average, which samples are drawn from."""
    ema_rampup: float = 0.0
    """Its half-life is at most this share of the steps.

    Of those so far, so that a young average does not lag behind G; 0: there is no such limit.
    """
    ema_start: int = 100
    """Steps during which the average is a copy of G."""
    standing_batches: int = 50
    """Batches for the BatchNorm statistics of samples."""
    planned_steps: int = 1500
    """Length of the run, in updates of G."""
    seed: int = 0
    """Seed of all randomness, together with the step."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "batch_size", "discriminator_steps", "standing_batches", "planned_steps")
        require(self, "standing_batches", self.standing_batches <= MOST_BATCHES, f"at most {MOST_BATCHES:,}")
        floor, most = self.top_k_floor, self._largest_batch()
        whole = float(floor).is_integer() and 1 < floor <= most
        rule = f"a share greater than 0 and at most 1, or a whole number up to the batch of {most}"
        require(self, "top_k_floor", 0 < floor <= 1 or whole, rule)
        require_within(self, 0, 1, "ema_decay", "ema_rampup")
        require_within(self, 0, 2**63 - 1, "ema_start", "seed")

    def at(self, images: int) -> Self:  # noqa: ARG002
        """The Config of an update after so many real images: a schedule is what a recipe overrides this with.

        Rates and betas of the optimizers, coefficients, ``ema_decay`` and fields of the recipe's own may change; what
        says how long a training is and what its batches hold may not. It is a function of the saved Config and of
        ``images`` alone, so that a resumed run goes on in the middle of a ramp. The ramps of ``gan_blocks`` help::

            def at(self, images: int) -> Self:
                return replace(self, generator_lr=cosine_ramp(images, 1_000_000, start=2e-4, end=5e-5))
        """
        return self

    def batch_size_at(self, step: int) -> int:  # noqa: ARG002
        """Images in a batch at a step, counted from 1; it may change in a network that grows."""
        return self.batch_size

    def _largest_batch(self) -> int:
        """The most samples that top-k may learn from at least; asked before a recipe's own fields are checked."""
        return self.batch_size

    def all_batch_sizes(self) -> tuple[int, ...]:
        """The sizes of all batches that a run may have."""
        return (self.batch_size,)

    def check_part(self, size: int) -> str | None:  # noqa: ARG002
        """What rule a micro-batch of a process breaks by its size, for networks that cannot take every one; or None."""
        return None

    def images_before(self, step: int) -> int:
        """Real images that D has seen before a step, counted from 1."""
        return (step - 1) * self.discriminator_steps * self.batch_size_at(step)
