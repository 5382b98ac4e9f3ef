"""The updates that a training step consists of: a loss goes in, the engine sees to micro-batches and what follows.

A recipe says what the loss of a micro-batch is: a tensor, or its terms by name where penalties are to be logged apart
from it. Here it is averaged over the batch, that of all processes, differentiated and descended; then the singular
vectors advance on the new weights and, after an update of G, its average moves.

Tested in ``tests/engine/training/test_updates.py``.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast, overload

import torch
from torch import Tensor, nn

from gan_blocks import half_life_decay, twice_differentiable
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.recipe.batches import Augment, FakeBatch, PairBatch, StepBatches
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.training.descent import (
    NOT_LOGGED,
    WHOLE,
    OfNetwork,
    Penalties,
    Totals,
    check_one_form,
    descend,
    listed_penalties,
)
from gan_blocks.engine.training.spectral_norms import cached_weights, known_weights
from gan_blocks.engine.training.top_k import best_of, choose_top_k

__all__ = [
    "fake_images_of",
    "score_fake",
    "score_generated",
    "score_generator_pair",
    "score_pair",
    "score_separately",
    "update_discriminator",
    "update_generator",
]

Loss = TypeVar("Loss", Tensor, dict[str, Tensor])


def fake_images_of(state: TrainingState, part: PairBatch) -> Tensor:
    """Images for an update of D, without a graph of G."""
    with torch.no_grad():
        images: Tensor = state.generator(part.fake.z, part.fake.labels)
    return images


def score_pair(state: TrainingState, part: PairBatch) -> tuple[Tensor, Tensor]:
    """D's logits of real and of generated images, in one call: for a D without layers that look across samples."""
    images = part.fake.seen(torch.cat([part.real_images, fake_images_of(state, part)]))
    logits = state.discriminator(images, torch.cat([part.real_labels, part.fake.labels]))
    real_logits, fake_logits = logits.chunk(2)
    return real_logits, fake_logits


def score_separately(state: TrainingState, part: PairBatch, fake_images: Tensor) -> tuple[Tensor, Tensor]:
    """The same in two calls: for a D with batch norm, which would let real and generated images see each other.

    Where images require gradients, their logits have second derivatives, for :func:`gan_blocks.zero_centered_penalty`.
    """

    def score(images: Tensor, labels: Tensor) -> Tensor:
        with twice_differentiable() if images.requires_grad else contextlib.nullcontext():
            logits: Tensor = state.discriminator(part.fake.seen(images), labels)
        return logits

    return score(part.real_images, part.real_labels), score(fake_images, part.fake.labels)


def score_fake(state: TrainingState, fake: FakeBatch) -> Tensor:
    """D's logits of generated images, differentiable in G; under top-k training, of the chosen ones alone."""
    if not isinstance(fake, FakeBatch):
        rule = "a FakeBatch, which update_generator gives the loss without same_labels=True"
        raise UserError(f"score_fake must get {rule}, but got a {type(fake).__name__}.")
    return score_generated(state, fake, state.generator(fake.z, fake.labels))


def score_generated(state: TrainingState, fake: FakeBatch, images: Tensor) -> Tensor:
    """The same of images that G has already made of a batch.

    G always sees the whole batch, since its BatchNorm looks across samples; a D that does not, only what was chosen.
    """
    logits = _score_chosen(state, fake, fake.seen(images))
    # A second pass of D over the best alone gains 2 to 4 % at k = B / 2 and loses above: see benchmarks/steps/top_k.py.
    return logits if fake.k is None else logits[best_of(state, logits, fake.k)]


def score_generator_pair(state: TrainingState, part: PairBatch) -> tuple[Tensor, Tensor]:
    """D's logits of real and of generated images for G's update; under top-k training, of the chosen pairs alone.

    Returns:
        Logits of as many real images as generated ones, of the same labels in the same order.
    """
    if not isinstance(part, PairBatch):
        rule = "a PairBatch, which update_generator(..., same_labels=True) gives the loss"
        raise UserError(f"score_generator_pair must get {rule}, but got a {type(part).__name__}.")
    fake = part.fake
    images: Tensor = state.generator(fake.z, fake.labels)
    fake_logits = _score_chosen(state, fake, fake.seen(images))
    real_logits = _score_chosen(state, fake, fake.seen(part.real_images))
    if fake.k is None:
        return real_logits, fake_logits
    best = best_of(state, fake_logits, fake.k)
    return real_logits[best], fake_logits[best]


def looks_across_samples(module: nn.Module) -> bool:
    """Whether a sample's output depends on the rest of its batch: by a true attribute of that name, or as torch's own.

    Whoever writes such a layer gives it ``looks_across_samples = True``.
    """
    return bool(getattr(module, "looks_across_samples", isinstance(module, nn.modules.batchnorm._BatchNorm)))


def _score_chosen(state: TrainingState, fake: FakeBatch, images: Tensor) -> Tensor:
    """D's logits of images at the places of a batch that were chosen, or at all of them."""
    if fake.chosen is None:
        logits: Tensor = state.discriminator(images, fake.labels)
    elif any(map(looks_across_samples, state.discriminator.modules())):
        logits = state.discriminator(images, fake.labels)[fake.chosen]  # the scores that they were chosen by
    else:
        logits = state.discriminator(images[fake.chosen], fake.labels[fake.chosen])
    return logits


def update_discriminator(
    state: TrainingState,
    batches: StepBatches,
    config: TrainingConfig,
    loss: Callable[[PairBatch], Loss],
    *,
    same_labels: bool = False,
    augment: Augment | None = None,
    penalties: Penalties = (),
    before_step: OfNetwork | None = None,
    after_step: OfNetwork | None = None,
) -> Loss:
    """Update D ``discriminator_steps`` times, each on a batch of its own.

    Args:
        state: Both players.
        batches: The step's batches.
        config: Says how many updates.
        loss: The mean loss of a micro-batch, on the graph of D's weights: a tensor, or terms by name, such as
            ``{"loss_d": ..., "r1_penalty": ...}``, whose sum is descended.
        same_labels: Whether generated images have the labels of the real ones beside them.
        augment: What D sees of an image instead of it, a differentiable function of images.
        penalties: Terms of the weights alone, added once an update; by name, or a list of them.
        before_step: Given D when its gradients are complete, such as to clip them.
        after_step: Given D when its weights have moved, such as to clip them.

    Returns:
        What the loss returned, as means over the batch and the updates, detached. Of a loss without names it is one
        tensor with the penalties in it; of one with names a dict to log, with the named penalties beside them.
    """
    total: Totals = {}
    listed = listed_penalties(penalties)
    for parameter in state.learning_d:  # a recipe may have frozen D for a pass of its own through G
        parameter.requires_grad_(True)
    for number in range(config.discriminator_steps):
        parts: Iterable[PairBatch] = batches.discriminator(number)
        if same_labels:
            parts = (replace(part, fake=replace(part.fake, labels=part.real_labels)) for part in parts)
        if augment is not None:
            parts = (replace(part, fake=replace(part.fake, augment=augment)) for part in parts)
        terms = descend(
            state,
            state.discriminator,
            state.optimizer_d,
            config.seed,
            parts,
            loss,
            penalties=listed,
            before_step=before_step,
            after_step=after_step,
        )
        check_one_form({**total, **terms})
        total |= {name: total.get(name, torch.zeros_like(term)) + term for name, term in terms.items()}
    means = {name: term / config.discriminator_steps for name, term in total.items()}
    return cast("Loss", means.get(WHOLE, means))  # as the loss came, with names or without


@overload
def update_generator(
    state: TrainingState,
    batches: StepBatches,
    config: TrainingConfig,
    loss: Callable[[FakeBatch], Loss],
    *,
    same_labels: Literal[False] = False,
    augment: Augment | None = None,
    k: int | None = None,
    penalties: Penalties = (),
    before_step: OfNetwork | None = None,
) -> Loss: ...


@overload
def update_generator(
    state: TrainingState,
    batches: StepBatches,
    config: TrainingConfig,
    loss: Callable[[PairBatch], Loss],
    *,
    same_labels: Literal[True],
    augment: Augment | None = None,
    k: int | None = None,
    penalties: Penalties = (),
    before_step: OfNetwork | None = None,
) -> Loss: ...


def update_generator(
    state: TrainingState,
    batches: StepBatches,
    config: TrainingConfig,
    loss: Callable[[Any], Any],
    *,
    same_labels: bool = False,
    augment: Augment | None = None,
    k: int | None = None,
    penalties: Penalties = (),
    before_step: OfNetwork | None = None,
) -> Any:
    """Update G once, then its average; under top-k training from the best samples of the whole batch.

    Args:
        state: Both players.
        batches: The step's batches.
        config: Says from which step on the average lags behind G, and how far.
        loss: The mean loss of a micro-batch, on the graph of G's weights; a tensor, or terms by name.
        same_labels: Whether the loss gets pairs, each a real and a generated image of one label;
            :func:`score_generator_pair` scores them.
        augment: What D sees of an image instead of it, a differentiable function of images.
        k: Learn from so many samples of the batch, those that D scores highest; None: as many as the Config's top-k
            fields say.
        penalties: Terms of the weights alone, added once; by name, or a list of them.
        before_step: Given G when its gradients are complete, such as to clip them.

    Returns:
        As :func:`update_discriminator`.
    """
    pairs = list(batches.generator_pairs()) if same_labels else []
    fakes = [replace(fake, augment=augment) for fake in ([pair.fake for pair in pairs] or batches.generator())]
    k = batches.k if k is None else k

    def loss_or_zero(part: FakeBatch | PairBatch) -> Any:
        if part.share > 0:
            return loss(part)
        # None of these samples was chosen, but running statistics move as without top-k, and other processes wait in
        # BatchNorm for this one's.
        fake = part.fake if isinstance(part, PairBatch) else part
        images = fake.seen(state.generator(fake.z, fake.labels))
        nothing: Tensor = 0 * state.discriminator(images, fake.labels).sum()
        return {NOT_LOGGED: nothing}

    with _without_weight_gradients(state.discriminator):
        if k < config.batch_size_at(batches.step):
            with known_weights(state), cached_weights(state):
                fakes = choose_top_k(state, fakes, k, config.seed)
        parts: Sequence[FakeBatch | PairBatch] = fakes
        if same_labels:
            parts = [replace(pair, fake=fake) for pair, fake in zip(pairs, fakes, strict=True)]
        total = descend(
            state,
            state.generator,
            state.optimizer_g,
            config.seed,
            parts,
            loss_or_zero,
            penalties=listed_penalties(penalties),
            before_step=before_step,
        )
    state.ema.update(state.generator, decay=_decay(config, batches.step))
    return total.get(WHOLE, total)


@contextlib.contextmanager
def _without_weight_gradients(network: nn.Module) -> Iterator[None]:
    """Compute no gradients of a network's weights in the ``with`` block; those that are frozen stay so after it."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _decay(config: TrainingConfig, step: int) -> float:
    """How much of G's average is kept at a step: a short memory at first, so that it does not lag behind."""
    if step <= config.ema_start:
        return 0.0
    if config.ema_rampup == 0:
        return config.ema_decay
    return min(config.ema_decay, half_life_decay(config.ema_rampup * step, batch_size=1))
