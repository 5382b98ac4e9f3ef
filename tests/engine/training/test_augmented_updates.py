"""Augmented images in both updates: what D sees, what penalties and top-k see."""

import dataclasses

import pytest
import torch
from torch import Tensor

from gan_blocks import zero_centered_penalty
from gan_blocks.engine import (
    FakeBatch,
    PairBatch,
    TrainingState,
    fake_images_of,
    load_images,
    score_fake,
    score_pair,
    score_separately,
    update_discriminator,
    update_generator,
)
from gan_blocks.engine.recipe.batches import BatchSource
from gan_blocks.engine.recipe.options import RunOptions
from recipes import sngan
from tests.engine.training.updates import gradients, prepared


def shifted_noise(images: Tensor) -> Tensor:
    """Somebody's augmentation, with random numbers of torch's global generator."""
    return images.roll(1, -1) + 0.1 * torch.randn_like(images)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_d_sees_every_image_augmented_in_both_updates(config: sngan.Config, accumulate: int):
    state, batches = prepared(config, accumulate=accumulate)
    seen: list[Tensor] = []
    state.discriminator.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().clone()))
    drawn: list[Tensor] = []

    def augment(images: Tensor) -> Tensor:
        drawn.append(shifted_noise(images))
        return drawn[-1]

    def loss_d(part: PairBatch) -> Tensor:
        real_logits, fake_logits = score_pair(state, part)
        return (fake_logits - real_logits).mean()

    update_discriminator(state, batches, config, loss_d, augment=augment)
    update_generator(state, batches, config, lambda fake: -score_fake(state, fake).mean(), augment=augment)
    assert len(drawn) == len(seen) == 2 * accumulate
    assert all(torch.equal(one, other) for one, other in zip(seen, drawn, strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in gradients(state.generator)[-2:])
    both = (*state.generator.parameters(), *state.discriminator.parameters())
    assert all(parameter.grad is None for parameter in both)  # whose memory the next update has


def test_penalties_differentiate_through_the_augmentation(config: sngan.Config):
    values = []
    for factor in (1.0, 2.0):
        state, batches = prepared(config)

        def loss(part: PairBatch, state: TrainingState = state) -> Tensor:
            images = part.real_images.requires_grad_()
            real_logits, _ = score_separately(state, part, fake_images_of(state, part))
            return zero_centered_penalty(images, real_logits)

        values.append(
            update_discriminator(state, batches, config, loss, augment=lambda images, f=factor: f * images / f * f)
        )
        assert any(gradient.abs().sum() > 0 for gradient in gradients(state.discriminator))
    # D is piecewise linear, so that its slope at twice the image is nearly the same, and twice as large by the chain.
    assert values[1] > 2 * values[0]


def test_top_k_over_micro_batches_chooses_by_the_augmented_images(config: sngan.Config):
    """Both passes over a micro-batch draw the same numbers, so that what was chosen is the best of what is learned."""
    top = dataclasses.replace(config, top_k_gamma=0.01, top_k_floor=3, top_k_decay_images=1)
    state, _ = prepared(top, accumulate=2)
    images = load_images(top.data, resolution=16, channels=1, num_classes=3)
    run = RunOptions(device="cpu", precision="fp64", accumulate=2)
    batches = BatchSource(images, sngan.RECIPE.build_prior(top), top, run).step(50)
    assert batches.k == 3
    kept: list[Tensor] = []
    judged: list[Tensor] = []
    state.discriminator.register_forward_hook(lambda _m, _i, logits: judged.append(logits.detach()))

    def loss(fake: FakeBatch) -> Tensor:
        kept.append(score_fake(state, fake))
        return -kept[-1].mean()

    update_generator(state, batches, top, loss, augment=shifted_noise)
    scores, chosen = torch.cat(judged[:2]), torch.cat(kept).detach()
    torch.testing.assert_close(chosen.sort().values, scores.sort().values[-3:])
