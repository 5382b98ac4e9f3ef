import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_blocks import mode_seeking_penalty
from tests.reference import losses as reference

IMAGES = torch.zeros(2, 3)


def pairs(rng: torch.Generator, batch: int = 3) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    first, second = (torch.randn(batch, 1, 2, 2, dtype=torch.float64, generator=rng).requires_grad_() for _ in range(2))
    return (first, second), tuple(torch.randn(2, batch, 5, dtype=torch.float64, generator=rng))


@given(batch=st.integers(1, 4), eps=st.floats(1e-5, 1), seed=st.integers(0, 99))
def test_mode_seeking_equals_the_reciprocal_of_the_ratio_of_distances(batch: int, eps: float, seed: int):
    images, z = pairs(torch.Generator().manual_seed(seed), batch)
    expected = reference.mode_seeking_penalty(
        (images[0].flatten(1).tolist(), images[1].flatten(1).tolist()), (z[0].tolist(), z[1].tolist()), eps
    )
    assert mode_seeking_penalty(fake_images=images, z=z, eps=eps).item() == pytest.approx(expected, rel=1e-10)


def test_gradients_of_mode_seeking_agree_with_finite_differences(rng: torch.Generator):
    images, z = pairs(rng)
    assert torch.autograd.gradcheck(lambda *both: mode_seeking_penalty(fake_images=both, z=z), images)


def test_descending_mode_seeking_moves_the_images_of_a_pair_apart(rng: torch.Generator):
    (first, second), z = pairs(rng)
    mode_seeking_penalty(fake_images=(first, second), z=z).backward()
    step = 0.01
    apart = ((first - step * first.grad) - (second - step * second.grad)).abs().mean()
    assert apart > (first - second).abs().mean()


def test_a_collapsed_generator_pays_the_reciprocal_of_eps(rng: torch.Generator):
    (first, _), z = pairs(rng)
    assert mode_seeking_penalty(fake_images=(first, first), z=z).item() == pytest.approx(1e5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mode_seeking_penalty(fake_images=(IMAGES, IMAGES), z=(IMAGES, IMAGES), eps=0),
            "mode_seeking_penalty: `eps` must be greater than 0, but got eps=0.",
        ),
        (
            lambda: mode_seeking_penalty(fake_images=(IMAGES, IMAGES[:, :2]), z=(IMAGES, IMAGES)),
            "mode_seeking_penalty: `fake_images` must be of shape twice (2, 3), but got fake_images of shape (2, 2).",
        ),
        (
            lambda: mode_seeking_penalty(fake_images=(IMAGES, IMAGES), z=(IMAGES[:1], IMAGES[:1])),
            "mode_seeking_penalty: `z` must be of shape (2, latent_dim), but got z of shape (1, 3).",
        ),
        (
            lambda: mode_seeking_penalty(fake_images=(IMAGES[:0], IMAGES[:0]), z=(IMAGES, IMAGES)),
            "mode_seeking_penalty: `fake_images` must be of shape (batch, ...) with at least one sample, "
            "but got fake_images of shape (0, 3).",
        ),
    ],
)
def test_rejects_wrong_arguments_by_name(call: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize("name", ["fake_images", "z"])
def test_mode_seeking_wants_pairs(name: str):
    pairs = {"fake_images": (torch.zeros(2, 5),) * 2, "z": (torch.zeros(2, 3),) * 2, name: ()}
    rule = rf"^mode_seeking_penalty: `{name}` must be two tensors, but got {name}=\(\)\.$"
    with pytest.raises(ValueError, match=rule):
        mode_seeking_penalty(**pairs)
