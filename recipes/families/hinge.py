"""How SA-GAN, BigGAN and BigGAN-deep are trained alike: the hinge loss, spectral norm, and what may be added to both.

The recipes differ in their networks and in the numbers of their presets. Tested through their tests, and in
``tests/recipes/families/test_regularization.py`` and ``test_spectral_layers.py``.
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
    require_positive,
    score_fake,
    update_discriminator,
    update_generator,
)
from recipes.families.regularization import (
    RegularizationFields,
    clip_gradients,
    discriminator_weight_penalty,
    embedding_norms,
    generator_weight_penalty,
    score_pair_with_r1,
)
from recipes.families.spectral_layers import SpectralFields, sigma_penalty

__all__ = ["HingeTrainingFields", "hinge_train_step"]


@dataclass(frozen=True)
class HingeTrainingFields(RegularizationFields, SpectralFields, AdamFields, TrainingConfig):
    """All that a Config of this family says beside its latents and networks."""

    hinge_margin: float = 1.0
    """Margin of D's hinge loss (paper: half of 1 hurts, up to 3 changes nothing, more is unstable)."""

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or two of them do not go together.
        """
        super().__post_init__()
        require_positive(self, "hinge_margin")


def hinge_train_step(state: TrainingState, batches: StepBatches, config: HingeTrainingFields) -> dict[str, Tensor]:
    """One step: ``discriminator_steps`` updates of D, then one of G and of its average."""

    def discriminator_loss(part: PairBatch) -> Tensor:
        real_logits, fake_logits, penalty = score_pair_with_r1(state, part, config)
        loss = hinge_discriminator_loss(real_logits=real_logits, fake_logits=fake_logits, margin=config.hinge_margin)
        return loss + penalty

    def generator_loss(fake: FakeBatch) -> Tensor:
        return hinge_generator_loss(fake_logits=score_fake(state, fake))

    terms_d = [
        partial(sigma_penalty, state.discriminator, config.discriminator_sigma_penalty, config),
        partial(discriminator_weight_penalty, state.discriminator, config),
    ]
    terms_g = [
        partial(sigma_penalty, state.generator, config.generator_sigma_penalty, config),
        partial(generator_weight_penalty, state.generator, config),
    ]
    clip = partial(clip_gradients, config=config)
    loss_d = update_discriminator(state, batches, config, discriminator_loss, penalties=terms_d, before_step=clip)
    loss_g = update_generator(state, batches, config, generator_loss, penalties=terms_g, before_step=clip)
    return {"loss_d": loss_d, "loss_g": loss_g, **embedding_norms(state.generator)}
