from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrize import remove_parametrizations

from gan_blocks import (
    advance_power_iteration,
    cached_spectral_norm,
    checkpoint_activations,
    frozen_power_iteration,
    spectral_norm,
    zero_centered_penalty,
)
from tests.drawn import draw
from tests.spectral.cached_critic import Context, batches, critic, plain


def gradients(model: nn.Module, context: Context, *, penalty: bool = False, second: bool = False) -> list[Tensor]:
    """Those of three micro-batches, of which each is scored twice."""
    with context(model):
        for images in batches():
            logits = model(images)
            loss = logits.square().mean() + model(-images).mean()
            if penalty:
                loss = loss + zero_centered_penalty(images, logits)
            if second:
                given = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
                loss = loss + sum(each.square().sum() for each in given)
            loss.backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def check_same_gradients(make: Callable[[], nn.Module], batches: Callable[[], Iterable[Tensor]]) -> None:
    """Check that a model, made twice, has the gradients of plain reads."""
    found = []
    for context in (cached_spectral_norm, plain):
        model = make()
        with context(model):
            for images in batches():
                model(images).square().sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@given(
    channels=st.integers(1, 7),
    channels_last=st.booleans(),
    count=st.integers(1, 2),
    eps=st.sampled_from([1e-4, 100.0]),
    penalty=st.booleans(),
    second=st.booleans(),
)
def test_gradients_are_those_of_plain_reads(channels, channels_last, count, eps, penalty, second):
    found, expected = (
        gradients(
            critic(channels=channels, channels_last=channels_last, count=count, eps=eps),
            context,
            penalty=penalty,
            second=second,
        )
        for context in (cached_spectral_norm, plain)
    )
    assert len(found) == len(expected) > 10
    largest = max(float(each.abs().max()) for each in expected)  # that of a single element is zero but for rounding
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10 * largest)


@pytest.mark.parametrize("channels_last", [False, True])
def test_large_weights_which_are_not_stacked_have_the_same_gradients(channels_last: bool):
    def wide() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(spectral_norm(nn.Conv2d(64, 65, 3)), spectral_norm(nn.Conv2d(65, 65, 3))).double()
        return model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    check_same_gradients(wide, lambda: [draw(1, 64, 6, 6)])


def test_a_weight_written_inside_is_read_as_it_is_and_gives_no_gradient_through_what_was_read_before():
    layer = spectral_norm(nn.Linear(4, 3).double())
    with cached_spectral_norm(layer):
        before = layer(torch.ones(1, 4).double()).sum()
        stale = layer.weight
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(3)
        with frozen_power_iteration(layer):
            torch.testing.assert_close(layer.weight, stale)  # normalized: the factor cancels
        assert layer.weight is not stale
        with pytest.raises(
            RuntimeError, match=r"^cached_spectral_norm: a weight of shape \(3, 4\) was written between"
        ):
            before.backward()


def test_under_autocast_it_computes_in_float32():
    layer = spectral_norm(nn.Linear(64, 64))
    with frozen_power_iteration(layer):
        expected = layer.weight
        with torch.autocast("cpu", torch.bfloat16), cached_spectral_norm(layer):
            torch.testing.assert_close(layer.weight, expected, rtol=1e-6, atol=1e-7)
            layer.weight.square().sum().backward()
    with frozen_power_iteration(layer):
        found, layer.parametrizations.weight.original.grad = layer.parametrizations.weight.original.grad, None
        layer.weight.square().sum().backward()
    torch.testing.assert_close(found, layer.parametrizations.weight.original.grad, rtol=1e-4, atol=1e-6)


def test_recomputed_activations_read_the_same_weights():
    def checkpointed() -> nn.Module:
        model = critic()
        checkpoint_activations(model[2])
        checkpoint_activations(model[4])
        return model

    check_same_gradients(checkpointed, batches)


def test_a_weight_without_a_gradient_may_be_written_before_the_backward_pass():
    model = nn.Sequential(spectral_norm(nn.Linear(4, 3)), spectral_norm(nn.Linear(3, 4)))
    with cached_spectral_norm(model):
        score = model[0].weight.sum()
        remove_parametrizations(model[1], "weight")
        score.backward()
    assert model[0].parametrizations.weight.original.grad is not None


def test_sparse_gradients_pass_as_those_of_plain_reads():
    check_same_gradients(
        lambda: (torch.manual_seed(0), spectral_norm(nn.Embedding(6, 3, sparse=True)).double())[1],
        lambda: [torch.tensor([1, 2, 2])],
    )


@pytest.mark.parametrize("width", [6, 300])  # padded with others, and by itself
def test_batched_gradients_are_those_of_plain_reads(width: int):
    model = nn.Sequential(spectral_norm(nn.Linear(8, width)), nn.Tanh(), spectral_norm(nn.Linear(width, 3))).double()
    advance_power_iteration(model)
    x = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gradients() -> tuple[Tensor, ...]:
        scores = model(x).sum(dim=0)
        return torch.autograd.grad(scores, list(model.parameters()), torch.eye(3).double(), is_grads_batched=True)

    with frozen_power_iteration(model):
        expected = gradients()
    with cached_spectral_norm(model):
        torch.testing.assert_close(gradients(), expected, rtol=1e-12, atol=1e-12)
