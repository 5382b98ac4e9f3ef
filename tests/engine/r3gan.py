"""R3GAN (Huang et al. 2024) as a recipe of one's own: a loss of pairs, R1 and R2, and ramps of all that it can ramp."""

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_blocks import (
    BiasedActivation,
    LearnedConstant2d,
    cosine_ramp,
    downsample_filtered,
    half_life_decay,
    upsample_bilinear,
    zero_centered_penalty,
)
from gan_blocks.engine import (
    AdamFields,
    PairBatch,
    Recipe,
    StepBatches,
    TrainingConfig,
    TrainingState,
    fake_images_of,
    score_generator_pair,
    score_separately,
    update_discriminator,
    update_generator,
)


@dataclass(frozen=True)
class Config(AdamFields, TrainingConfig):
    latent_dim: int = 64
    """Dimension of z, which is normal."""
    width: int = 64
    """Channels of every block."""
    gamma: float = 2.0
    """Strength of R1 and R2 at first; a tenth of it at the end of the ramp."""
    half_life: int = 10_000
    """Images in which the average of G forgets half, once 20 times as many have been seen."""
    ramp_images: int = 100_000
    """Images in which rates and gamma fall, and beta2 rises."""

    def at(self, images: int) -> "Config":
        ramp = partial(cosine_ramp, images, self.ramp_images)
        return replace(
            self,
            generator_lr=ramp(start=self.generator_lr, end=self.generator_lr / 4),
            discriminator_lr=ramp(start=self.discriminator_lr, end=self.discriminator_lr / 4),
            adam_beta2=ramp(start=0.9, end=self.adam_beta2),
            gamma=ramp(start=self.gamma, end=self.gamma / 10),
            ema_decay=half_life_decay(min(self.half_life, 0.05 * images), batch_size=self.batch_size),
        )


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(2 * width, width, 1, bias=False)
        nn.init.zeros_(last.weight)
        grouped = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=width // 4, bias=False)
        first = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.residual = nn.Sequential(first, BiasedActivation(2 * width), grouped, BiasedActivation(2 * width), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class Generator(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.num_classes, config.latent_dim)
        self.project = nn.Linear(2 * config.latent_dim, config.width, bias=False)
        self.constant = LearnedConstant2d(config.width, 4)
        self.blocks = nn.ModuleList(Block(config.width) for _ in range(config.resolution.bit_length() - 2))
        self.to_image = nn.Conv2d(config.width, config.image_channels, 1, bias=False)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = self.constant(self.project(torch.cat([z, self.embedding(labels)], dim=1)))
        for number, block in enumerate(self.blocks):
            x = block(upsample_bilinear(x) if number else x)
        return self.to_image(x)


class Discriminator(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.from_image = nn.Conv2d(config.image_channels, config.width, 1, bias=False)
        self.blocks = nn.ModuleList(Block(config.width) for _ in range(config.resolution.bit_length() - 2))
        self.features = nn.Conv2d(config.width, config.width, 4, groups=config.width, bias=False)
        self.embedding = nn.Embedding(config.num_classes, config.width)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        x = self.from_image(images)
        for number, block in enumerate(self.blocks):
            x = block(downsample_filtered(x) if number else x)
        return (self.features(x).flatten(1) * self.embedding(labels)).mean(1)


def train_step(state: TrainingState, batches: StepBatches, config: Config) -> dict[str, Tensor]:
    def discriminator_loss(part: PairBatch) -> dict[str, Tensor]:
        real_images, fake_images = part.real_images.requires_grad_(), fake_images_of(state, part).requires_grad_()
        real_logits, fake_logits = score_separately(state, part, fake_images)
        r1 = zero_centered_penalty(real_images, real_logits, config.gamma)
        r2 = zero_centered_penalty(fake_images, fake_logits, config.gamma)
        return {"loss_d": F.softplus(fake_logits - real_logits).mean(), "r1_penalty": r1, "r2_penalty": r2}

    def generator_loss(part: PairBatch) -> dict[str, Tensor]:
        real_logits, fake_logits = score_generator_pair(state, part)
        return {"loss_g": F.softplus(real_logits - fake_logits).mean()}

    of_d = update_discriminator(state, batches, config, discriminator_loss, same_labels=True)
    return of_d | update_generator(state, batches, config, generator_loss, same_labels=True)


networks = {"build_generator": Generator, "build_discriminator": Discriminator}
RECIPE = Recipe(config=Config, presets={"small": Config}, train_step=train_step, **networks)
