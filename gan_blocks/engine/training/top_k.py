"""Top-k training in a step: which generated images an update of G learns from, over the whole batch.

Tested in ``tests/engine/training/test_top_k.py``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gan_blocks import distributed_top_k, top_k_mask
from gan_blocks.engine.base.randomness import seeded_noise
from gan_blocks.engine.recipe.batches import FakeBatch
from gan_blocks.engine.recipe.state import TrainingState

__all__ = ["AllScoresNaNError", "best_of", "choose_top_k"]


class AllScoresNaNError(Exception):
    """No generated image of a batch has a score to choose by: the training has diverged."""


def choose_top_k(state: TrainingState, parts: Sequence[FakeBatch], k: int, seed: int) -> list[FakeBatch]:
    """The parts of a batch, told which of their samples are among the k that D scores highest in all of it.

    The only part of a batch is told k alone: it chooses by the logits that it computes anyway. Several parts do not fit
    into memory together, so they are scored without graph first, which changes no state but the count of NaN.

    Raises:
        AllScoresNaNError: If there is nothing to choose from.
    """
    if len(parts) == 1 and not (dist.is_available() and dist.is_initialized()):
        return [replace(parts[0], k=k)]
    scores = []
    with torch.no_grad(), state.autocast(), _kept_buffers(state.generator, state.discriminator):
        for part in parts:
            with seeded_noise(seed, *part.noise_key, device=state.device):
                images = part.seen(state.generator(part.z, part.labels))
                scores.append(state.discriminator(images, part.labels))
    try:
        selections = distributed_top_k(scores, k)
    except ValueError as error:
        if not all(bool(part.isnan().all()) for part in scores):
            raise
        raise AllScoresNaNError from error
    state.nan_scores.fill_(selections[0].num_nan)
    return [
        replace(part, chosen=selection.mask, share=selection.share)
        for part, selection in zip(parts, selections, strict=True)
    ]


def best_of(state: TrainingState, logits: Tensor, k: int) -> Tensor:
    """Mark the k largest of the only part's logits, bool; those that are NaN are left out, and counted.

    Raises:
        AllScoresNaNError: If there is nothing to choose from.
    """
    state.nan_scores.copy_(logits.isnan().sum())
    best = top_k_mask(logits, k)
    if not best.any():
        raise AllScoresNaNError
    return best


@contextmanager
def _kept_buffers(*networks: nn.Module) -> Iterator[None]:
    """Undo what forward passes do to buffers, such as the running statistics of BatchNorm in train mode."""
    before = [(buffer, buffer.clone()) for network in networks for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
