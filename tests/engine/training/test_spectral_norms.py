"""The spectral norms of both players during an update: who looks at which weight, and how often."""

import contextlib
import copy
import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from gan_blocks import SpectralNorm
from gan_blocks.engine import (
    PairBatch,
    TrainingState,
    score_pair,
    update_discriminator,
)
from gan_blocks.engine.training import descent
from recipes import sngan
from tests.engine.training.updates import prepared


@pytest.mark.parametrize("written", [False, True])
def test_spectral_norms_look_at_their_weights_only_where_somebody_else_wrote_them(
    config: sngan.Config, written: bool, monkeypatch: pytest.MonkeyPatch
):
    state, batches = prepared(config)
    looks: list[SpectralNorm] = []
    notice = SpectralNorm._notice

    def counting(tracker: SpectralNorm, weight: Tensor, matrix: Tensor) -> Any:
        looks.append(tracker)
        return notice(tracker, weight, matrix)

    def loss(part: PairBatch) -> Tensor:
        value = score_pair(state, part)[1].square().mean()
        vectors.extend(value.clone() for value in state.discriminator.buffers())
        return value

    monkeypatch.setattr(SpectralNorm, "_notice", counting)
    vectors: list[Tensor] = []
    update_discriminator(state, batches, config, loss)
    norms = [module for module in state.discriminator.modules() if isinstance(module, SpectralNorm)]
    assert {*norms} <= {*looks}  # nothing is known at first
    if written:
        with torch.no_grad():
            for parameter in state.discriminator.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    expected = copy.deepcopy(state.discriminator)
    expected(torch.zeros(1, 1, 16, 16, dtype=torch.float64), torch.zeros(1, dtype=torch.long))  # a read of each weight
    looks.clear()
    vectors.clear()
    update_discriminator(state, batches, config, loss)
    assert {*norms} & {*looks} == ({*norms} if written else set())
    torch.testing.assert_close(vectors, list(expected.buffers()))


def test_normalized_weights_are_computed_once_for_all_micro_batches_with_the_gradients_of_plain_reads(
    config: sngan.Config, monkeypatch: pytest.MonkeyPatch
):
    config = dataclasses.replace(config, discriminator_steps=2)
    (cached, batches), (plain, _) = (prepared(config, accumulate=3) for _ in range(2))
    read: list[Tensor] = []

    def loss(state: TrainingState, part: PairBatch) -> Tensor:
        read.append(next(module for module in state.discriminator.modules() if is_parametrized(module)).weight)
        real_logits, fake_logits = score_pair(state, part)
        return (1 - real_logits).relu().mean() + (1 + fake_logits).relu().mean()

    update_discriminator(cached, batches, config, partial(loss, cached))
    assert len({id(weight) for weight in read[:3]}) == 1
    assert read[3] is not read[0]
    monkeypatch.setattr(descent, "cached_weights", lambda _state: contextlib.nullcontext())
    read.clear()
    update_discriminator(plain, batches, config, partial(loss, plain))
    assert len({id(weight) for weight in read[:3]}) == 3
    for one, other in zip(cached.discriminator.parameters(), plain.discriminator.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
