"""How SA-GAN, BigGAN and BigGAN-deep are trained alike: the hinge loss, with orthogonal regularization and R1.

The recipes differ in their networks and in the numbers of their presets. Tested through their tests, and in
``tests/recipes/families/test_regularization.py``.
"""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from gan_blocks import hinge_discriminator_loss, hinge_generator_loss
from gan_blocks.engine import (
    AdamFields,
    FakeBatch,
    PairBatch,
    StepBatches,
    TrainingConfig,
    TrainingState,
    score_fake,
    update_discriminator,
    update_generator,
)
from recipes.families.regularization import (
    RegularizationFields,
    embedding_norms,
    generator_weight_penalty,
    score_pair_with_r1,
)

__all__ = ["HingeTrainingFields", "hinge_train_step"]


@dataclass(frozen=True)
class HingeTrainingFields(RegularizationFields, AdamFields, TrainingConfig):
    """All that a Config of this family says beside its latents and networks."""


def hinge_train_step(state: TrainingState, batches: StepBatches, config: HingeTrainingFields) -> dict[str, Tensor]:
    """One step: ``discriminator_steps`` updates of D, then one of G and of its average."""

    def discriminator_loss(part: PairBatch) -> dict[str, Tensor]:
        real_logits, fake_logits, r1 = score_pair_with_r1(state, part, config)
        loss = hinge_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits)
        return {"loss_d": loss, **r1}

    def generator_loss(fake: FakeBatch) -> dict[str, Tensor]:
        return {"loss_g": hinge_generator_loss(fake_logits=score_fake(state, fake))}

    of_weights = {"orthogonal_penalty": partial(generator_weight_penalty, state.generator, config)}
    of_d = update_discriminator(state, batches, config, discriminator_loss)
    of_g = update_generator(state, batches, config, generator_loss, penalties=of_weights)
    return of_d | of_g | embedding_norms(state.generator)
