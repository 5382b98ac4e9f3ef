"""The updates that a training step consists of: a loss goes in, the engine sees to micro-batches and what follows.

A recipe says what the loss of a micro-batch is. Here it is averaged over the batch, that of all processes,
differentiated and descended; then the singular vectors advance on the new weights and, after an update of G, its
average moves.

Tested in ``tests/engine/training/test_updates.py``.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar, overload
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn, optim

from gan_blocks import advance_power_iteration, frozen_power_iteration, twice_differentiable
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.processes import sum_gradients
from gan_blocks.engine.base.randomness import seeded_noise
from gan_blocks.engine.recipe.batches import Augment, FakeBatch, PairBatch, StepBatches
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.state import TrainingState
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

_VERSIONS_AT_ADVANCE = WeakKeyDictionary[nn.Module, list[int]]()

Part = TypeVar("Part", bound=FakeBatch | PairBatch)
Penalty = Callable[[], Tensor]
OfNetwork = Callable[[nn.Module], None]


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
    # A second pass of D over the best alone gains 2 to 4 % at k = B / 2 and loses above: see benchmarks/top_k_step.py.
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
    loss: Callable[[PairBatch], Tensor],
    *,
    same_labels: bool = False,
    augment: Augment | None = None,
    penalties: Iterable[Penalty] = (),
    before_step: OfNetwork | None = None,
    after_step: OfNetwork | None = None,
) -> Tensor:
    """Update D ``discriminator_steps`` times, each on a batch of its own.

    Args:
        state: Both players.
        batches: The step's batches.
        config: Says how many updates.
        loss: The mean loss of a micro-batch, on the graph of D's weights.
        same_labels: Whether generated images have the labels of the real ones beside them.
        augment: What D sees of an image instead of it, a differentiable function of images.
        penalties: Terms of the weights alone, added once an update.
        before_step: Given D when its gradients are complete, such as to clip them.
        after_step: Given D when its weights have moved, such as to clip them.

    Returns:
        The mean of the losses over the updates, detached.
    """
    state.discriminator.requires_grad_(True)
    descend = partial(_descend, state, state.discriminator, state.optimizer_d, config.seed)
    total = torch.zeros((), device=state.device)
    for number in range(config.discriminator_steps):
        parts: Iterable[PairBatch] = batches.discriminator(number)
        if same_labels:
            parts = (replace(part, fake=replace(part.fake, labels=part.real_labels)) for part in parts)
        if augment is not None:
            parts = (replace(part, fake=replace(part.fake, augment=augment)) for part in parts)
        total = total + descend(parts, loss, penalties, before_step, after_step)
    return total / config.discriminator_steps


@overload
def update_generator(
    state: TrainingState,
    batches: StepBatches,
    config: TrainingConfig,
    loss: Callable[[FakeBatch], Tensor],
    *,
    same_labels: Literal[False] = False,
    augment: Augment | None = None,
    k: int | None = None,
    penalties: Iterable[Penalty] = (),
    before_step: OfNetwork | None = None,
) -> Tensor: ...


@overload
def update_generator(
    state: TrainingState,
    batches: StepBatches,
    config: TrainingConfig,
    loss: Callable[[PairBatch], Tensor],
    *,
    same_labels: Literal[True],
    augment: Augment | None = None,
    k: int | None = None,
    penalties: Iterable[Penalty] = (),
    before_step: OfNetwork | None = None,
) -> Tensor: ...


def update_generator(
    state: TrainingState,
    batches: StepBatches,
    config: TrainingConfig,
    loss: Callable[[Any], Tensor],
    *,
    same_labels: bool = False,
    augment: Augment | None = None,
    k: int | None = None,
    penalties: Iterable[Penalty] = (),
    before_step: OfNetwork | None = None,
) -> Tensor:
    """Update G once, then its average; under top-k training from the best samples of the whole batch.

    Args:
        state: Both players.
        batches: The step's batches.
        config: Says from which step on the average lags behind G, and how far.
        loss: The mean loss of a micro-batch, on the graph of G's weights.
        same_labels: Whether the loss gets pairs, each a real and a generated image of one label;
            :func:`score_generator_pair` scores them.
        augment: What D sees of an image instead of it, a differentiable function of images.
        k: Learn from so many samples of the batch, those that D scores highest; None: as many as the Config's top-k
            fields say.
        penalties: Terms of the weights alone, added once.
        before_step: Given G when its gradients are complete, such as to clip them.

    Returns:
        The loss, detached.
    """
    state.discriminator.requires_grad_(False)  # G's update needs no gradients of D's weights
    descend = partial(_descend, state, state.generator, state.optimizer_g, config.seed)
    pairs = list(batches.generator_pairs()) if same_labels else []
    fakes = [replace(fake, augment=augment) for fake in ([pair.fake for pair in pairs] or batches.generator())]
    k = batches.k if k is None else k
    if k < config.batch_size:
        with _known_weights(state):
            fakes = choose_top_k(state, fakes, k, config.seed)
    parts: Sequence[FakeBatch | PairBatch] = fakes
    if same_labels:
        parts = [replace(pair, fake=fake) for pair, fake in zip(pairs, fakes, strict=True)]

    def loss_or_zero(part: FakeBatch | PairBatch) -> Tensor:
        if part.share > 0:
            return loss(part)
        # None of these samples was chosen, but running statistics move as without top-k, and other processes wait in
        # BatchNorm for this one's.
        fake = part.fake if isinstance(part, PairBatch) else part
        images = fake.seen(state.generator(fake.z, fake.labels))
        nothing: Tensor = 0 * state.discriminator(images, fake.labels).sum()
        return nothing

    total = descend(parts, loss_or_zero, penalties, before_step, None)
    state.ema.update(state.generator, decay=0.0 if batches.step <= config.ema_start else config.ema_decay)
    return total


@contextlib.contextmanager
def _known_weights(state: TrainingState) -> Iterator[None]:
    """After an update here no spectral norm has to look whether its weight is still the same, unless somebody wrote."""
    with contextlib.ExitStack() as held:
        for network in (state.discriminator, state.generator):
            if _VERSIONS_AT_ADVANCE.get(network) == _versions(network):
                held.enter_context(frozen_power_iteration(network))
        yield


def _versions(network: nn.Module) -> list[int]:
    return [parameter._version for parameter in network.parameters()]


def _descend(
    state: TrainingState,
    network: nn.Module,
    optimizer: optim.Optimizer,
    seed: int,
    parts: Iterable[Part],
    loss: Callable[[Part], Tensor],
    penalties: Iterable[Penalty],
    before_step: OfNetwork | None,
    after_step: OfNetwork | None,
) -> Tensor:
    optimizer.zero_grad()
    total = torch.zeros((), device=state.device)
    with _known_weights(state):
        for part in parts:
            with state.autocast(), seeded_noise(seed, *part.noise_key, device=state.device):
                value = loss(part)
                if not isinstance(value, Tensor) or value.numel() != 1:
                    got = f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                    raise UserError(f"the loss of a micro-batch must be a tensor of one element, but got {got}.")
                value = part.share * value
            value.backward()
            total = total + value.detach()
        sum_gradients(network, total)
        for penalty in penalties:
            value = penalty()
            if value.requires_grad:  # a coefficient of 0 leaves a constant
                value.backward()
            total = total + value.detach().to(state.device)
    if before_step is not None:
        before_step(network)
    optimizer.step()
    if after_step is not None:
        after_step(network)
    advance_power_iteration(network)
    _VERSIONS_AT_ADVANCE[network] = _versions(network)
    return total
