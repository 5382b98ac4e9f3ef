"""SA-GAN with top-k applied to the discriminator, which breaks it: an ablation of Table 5 (Sinha et al. 2020).

Top-k training is the generator's: it learns from the samples that the discriminator scores highest. Here the
discriminator's loss, too, may see only the k best real and generated images of a batch, or its loss and not the
generator's. ``python -m recipes.studies.top_k --table 5`` trains these arms beside the others.

Tested in ``tests/recipes/studies/test_top_k.py``.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from gan_blocks import hinge_discriminator_loss, hinge_generator_loss, select_top_k_pairs
from gan_blocks.engine import (
    FakeBatch,
    PairBatch,
    Recipe,
    StepBatches,
    TrainingState,
    UserError,
    score_fake,
    score_pair,
    update_discriminator,
    update_generator,
)
from recipes import sagan
from recipes.studies.presets import extended_presets

__all__ = ["PRESETS", "RECIPE", "Config", "Players"]

Players = Literal["generator", "discriminator", "both"]


@dataclass(frozen=True)
class Config(sagan.Config):
    """SA-GAN's, and whose loss top-k training is in."""

    help_group: ClassVar[str] = "regularizers"

    top_k_players: Players = "both"
    """Whose loss sees only the k best samples."""
    top_k_gamma: float = 0.99


PRESETS = extended_presets(Config, sagan.PRESETS)


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    """The step of SA-GAN without regularizers, in which D's loss may see k of the real and k of the generated images.

    Raises:
        UserError: If D's batch is split, whose best images would have to be chosen from all of its parts.
    """
    of_d = batches.k if config.top_k_players != "generator" else config.batch_size
    of_g = batches.k if config.top_k_players != "discriminator" else config.batch_size

    def discriminator_loss(part: PairBatch) -> Tensor:
        if config.top_k_players != "generator" and part.share < 1:
            rule = "generator where a batch is split over micro-batches or processes"
            raise UserError(f"--top-k-players must be {rule}, but got {config.top_k_players}.")
        real_logits, fake_logits = score_pair(state, part)
        if of_d < config.batch_size:
            real_logits, fake_logits = select_top_k_pairs(real_logits=real_logits, fake_logits=fake_logits, k=of_d)
        return hinge_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)

    def generator_loss(fake: FakeBatch) -> Tensor:
        return hinge_generator_loss(fake_logits=score_fake(state, fake))

    loss_d = update_discriminator(state, batches, config, discriminator_loss)
    loss_g = update_generator(state, batches, config, generator_loss, k=of_g)
    return {"loss_d": loss_d, "loss_g": loss_g}


RECIPE = Recipe(
    config=Config,
    presets=PRESETS,
    build_generator=sagan.Generator,
    build_discriminator=sagan.build_discriminator,
    train_step=train_step,
)

if __name__ == "__main__":
    raise SystemExit(RECIPE.main())
