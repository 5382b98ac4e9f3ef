import math
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import gradient_penalty, lazy_coefficient, r1_penalty, zero_centered_penalty
from tests.reference import losses as reference

seeds = st.integers(0, 99)


class TanhCritic:
    """D(x) = sum_k a_k tanh(b_k . x), whose slope is known: sum_k a_k (1 - tanh(b_k . x)^2) b_k."""

    def __init__(self, features: int, rng: torch.Generator) -> None:
        self.a = torch.randn(3, dtype=torch.float64, generator=rng, requires_grad=True)
        self.b = torch.randn(3, features, dtype=torch.float64, generator=rng, requires_grad=True)

    def __call__(self, images: Tensor) -> Tensor:
        return tanh_critic(self.a, self.b)(images)

    def slope(self, image: list[float]) -> list[float]:
        slope = [0.0] * len(image)
        for a, b in zip(self.a.tolist(), self.b.tolist(), strict=True):
            factor = a * (1 - math.tanh(reference.dot(b, image)) ** 2)
            slope = [total + factor * component for total, component in zip(slope, b, strict=True)]
        return slope


def tanh_critic(a: Tensor, b: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda images: torch.tanh(images.flatten(1) @ b.T) @ a


def random_images(*shape: int, rng: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=rng)


# --- R1 ---


@given(batch=st.integers(1, 4), gamma=st.floats(0.1, 20), seed=seeds)
def test_r1_equals_the_mean_of_squared_slopes(batch: int, gamma: float, seed: int):
    rng = torch.Generator().manual_seed(seed)
    critic, images = TanhCritic(8, rng), random_images(batch, 2, 2, 2, rng=rng)
    expected = reference.r1_penalty(critic.slope, images.flatten(1).tolist(), gamma)
    assert r1_penalty(critic, images, gamma).item() == pytest.approx(expected, rel=1e-10)


def test_gradients_of_r1_by_the_critics_weights_agree_with_finite_differences(rng: torch.Generator):
    critic, images = TanhCritic(4, rng), random_images(3, 4, rng=rng)
    assert torch.autograd.gradcheck(lambda a, b: r1_penalty(tanh_critic(a, b), images, gamma=2.0), (critic.a, critic.b))


def test_r1_sends_no_gradient_into_the_images_and_works_where_gradients_are_off(rng: torch.Generator):
    critic, images = TanhCritic(4, rng), random_images(3, 4, rng=rng).requires_grad_()
    value = r1_penalty(critic, images)
    value.backward()
    assert images.grad is None
    with torch.no_grad():
        assert r1_penalty(critic, images).item() == value.item()


def test_logits_of_patches_and_scales_count_by_their_sum(rng: torch.Generator):
    images = random_images(3, 4, rng=rng).requires_grad_()
    patches = torch.stack([images.square().sum(1), images.prod(1)], dim=1)
    total = zero_centered_penalty(images, patches.sum(1))
    assert zero_centered_penalty(images, patches).item() == pytest.approx(total.item(), rel=1e-12)
    scales = [patches[:, :1], patches[:, 1], torch.ones(3)]
    assert zero_centered_penalty(images, scales).item() == pytest.approx(total.item(), rel=1e-12)


def test_a_strength_of_zero_is_no_penalty_and_costs_nothing(rng: torch.Generator):
    images = random_images(2, 3, rng=rng)
    assert zero_centered_penalty(images, images.sum(1), 0.0).item() == 0
    assert r1_penalty(lambda images: pytest.fail("it was called"), images, 0.0).item() == 0


# --- WGAN-GP ---


@given(batch=st.integers(1, 4), lam=st.floats(0.1, 20), target=st.floats(0.5, 800), seed=seeds)
def test_the_gradient_penalty_equals_the_mean_over_pairs(batch: int, lam: float, target: float, seed: int):
    rng = torch.Generator().manual_seed(seed)
    critic = TanhCritic(8, rng)
    real, fake = (random_images(batch, 2, 2, 2, rng=rng) for _ in range(2))
    shares = torch.rand(batch, dtype=torch.float64, generator=rng)
    rows = [images.flatten(1).tolist() for images in (real, fake)]
    expected = reference.gradient_penalty(critic.slope, *rows, shares.tolist(), lam, target)
    value = gradient_penalty(
        critic, real_images=real, fake_images=fake, coefficient=lam, target=target, interpolation=shares
    )
    assert value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("target", [1.0, 3.0])
def test_gradients_of_the_gradient_penalty_agree_with_finite_differences(target: float, rng: torch.Generator):
    critic = TanhCritic(4, rng)
    real, fake = (random_images(3, 4, rng=rng) for _ in range(2))
    shares = torch.rand(3, dtype=torch.float64, generator=rng)
    assert torch.autograd.gradcheck(
        lambda a, b: gradient_penalty(
            tanh_critic(a, b), real_images=real, fake_images=fake, target=target, interpolation=shares
        ),
        (critic.a, critic.b),
    )


def test_one_uniform_number_mixes_all_pixels_of_a_pair(rng: torch.Generator):
    seen: list[Tensor] = []

    def critic(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return images.square().sum((1, 2, 3))

    shape = (2000, 2, 2, 2)
    gradient_penalty(critic, real_images=torch.zeros(shape), fake_images=torch.ones(shape), generator=rng)
    shares = seen[0].flatten(1)
    assert torch.equal(shares, shares[:, :1].expand(-1, 8))
    # Kolmogorov and Smirnov's distance from U[0, 1]; 1.95 / sqrt(n) is exceeded once in a thousand seeds.
    ranks = torch.arange(1, 2001) / 2000
    assert (shares[:, 0].sort().values - ranks).abs().max() < 1.95 / math.sqrt(2000) + 1 / 2000


def test_generated_images_of_autocast_meet_real_ones_in_float32(rng: torch.Generator):
    real, fake, mix = torch.randn(4, 3, generator=rng), torch.randn(4, 3, generator=rng).bfloat16(), torch.rand(4)
    given = {"real_images": real, "interpolation": mix}
    penalties = [
        gradient_penalty(lambda x: x.square().sum(1), fake_images=images, **given) for images in (fake, fake.float())
    ]
    assert torch.equal(*penalties)


def test_mixes_of_narrow_images_are_rounded_once():
    """The shares have as many values as float32 has, not the few hundred of bfloat16."""
    seen: list[Tensor] = []
    real, fake = torch.zeros(1000, 1).bfloat16(), torch.full((1000, 1), 3.0).bfloat16()
    shares = torch.linspace(0, 1, 1000)
    gradient_penalty(
        lambda x: (seen.append(x.detach()), x.float().square().sum(1))[1],
        real_images=real,
        fake_images=fake,
        interpolation=shares,
    )
    assert seen[0].dtype == torch.bfloat16
    assert torch.equal(seen[0].squeeze(1), (3 * shares).bfloat16())


def test_interpolation_0_is_the_real_image_and_1_the_generated_one(rng: torch.Generator):
    critic = TanhCritic(4, rng)
    real, fake = (random_images(2, 4, rng=rng) for _ in range(2))
    for mix, images in ((0.0, real), (1.0, fake)):
        ends = gradient_penalty(critic, real_images=real, fake_images=fake, interpolation=torch.full((2,), mix))
        alone = gradient_penalty(critic, real_images=images, fake_images=images)
        assert ends.item() == pytest.approx(alone.item(), rel=1e-10)


def test_draws_come_from_the_generator_alone():
    critic = TanhCritic(4, torch.Generator().manual_seed(1))
    images = {"real_images": torch.zeros(3, 4).double(), "fake_images": torch.ones(3, 4).double()}
    before = torch.get_rng_state()
    values = [gradient_penalty(critic, **images, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert values[0].item() == values[1].item()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_flat_critic_pays_the_coefficient_and_has_a_finite_gradient():
    weight = torch.zeros(4, requires_grad=True)
    images = torch.ones(3, 4)
    value = gradient_penalty(lambda x: x @ weight, real_images=images, fake_images=images, target=750.0)
    value.backward()
    assert value.item() == 10
    assert weight.grad.isfinite().all()


def test_it_sends_no_gradient_into_the_generator(rng: torch.Generator):
    fake = random_images(3, 4, rng=rng).requires_grad_()
    gradient_penalty(TanhCritic(4, rng), real_images=random_images(3, 4, rng=rng), fake_images=fake).backward()
    assert fake.grad is None


# --- lazy regularization ---


@given(coefficient=st.floats(0, 100), interval=st.integers(1, 20), start=st.integers(0, 5))
def test_a_lazy_coefficient_keeps_its_mean_over_updates(coefficient: float, interval: int, start: int):
    updates = range(start * interval, (start + 3) * interval)
    values = [lazy_coefficient(coefficient, interval=interval, update=update) for update in updates]
    assert sum(values) / len(values) == pytest.approx(coefficient)
    assert [update for update, value in zip(updates, values, strict=True) if value] == (
        [update for update in updates if update % interval == 0] if coefficient else []
    )


# --- errors ---


def critic(images: Tensor) -> Tensor:
    return images.flatten(1).sum(1)


IMAGES = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: r1_penalty(critic, IMAGES, gamma=-0.5),
            "r1_penalty: `gamma` must be at least 0, but got gamma=-0.5.",
        ),
        (
            lambda: r1_penalty(critic, IMAGES[:0]),
            "r1_penalty: `images` must be of shape (batch, ...) with at least one sample, "
            "but got images of shape (0, 3).",
        ),
        (
            lambda: r1_penalty(lambda x: x.sum(), IMAGES),
            "r1_penalty: `logits` must be of shape (2, ...), but got logits of shape (). Every image has its own.",
        ),
        (
            lambda: r1_penalty(lambda x: torch.ones(2, requires_grad=True), IMAGES),
            "r1_penalty: the logits must have been computed from these images, but they do not depend on them.",
        ),
        (
            lambda: zero_centered_penalty(IMAGES, critic(IMAGES)),
            "zero_centered_penalty: `images` must require gradients: call images.requires_grad_() before the "
            "discriminator takes them.",
        ),
        (
            lambda: zero_centered_penalty(IMAGES.clone().requires_grad_(), critic(IMAGES)),
            "zero_centered_penalty: the logits must have been computed from these images, but they do not depend on "
            "them.",
        ),
        (
            lambda: zero_centered_penalty(IMAGES, critic(IMAGES), gamma=-1.0),
            "zero_centered_penalty: `gamma` must be at least 0, but got gamma=-1.0.",
        ),
        (
            lambda: lazy_coefficient(-1.0, interval=1, update=0),
            "lazy_coefficient: `coefficient` must be at least 0, but got coefficient=-1.0.",
        ),
        (
            lambda: lazy_coefficient(1.0, interval=0, update=0),
            "lazy_coefficient: `interval` must be at least 1, but got interval=0.",
        ),
        (
            lambda: lazy_coefficient(1.0, interval=1, update=-1),
            "lazy_coefficient: `update` must be at least 0, but got update=-1.",
        ),
        (
            lambda: gradient_penalty(critic, real_images=IMAGES, fake_images=IMAGES, coefficient=-1),
            "gradient_penalty: `coefficient` must be greater than 0, but got coefficient=-1.",
        ),
        (
            lambda: gradient_penalty(critic, real_images=IMAGES, fake_images=IMAGES, target=0),
            "gradient_penalty: `target` must be greater than 0, but got target=0.",
        ),
        (
            lambda: gradient_penalty(critic, real_images=torch.zeros(2), fake_images=IMAGES),
            "gradient_penalty: `real_images` must be of shape (batch, ...) with at least one sample, "
            "but got real_images of shape (2,).",
        ),
        (
            lambda: gradient_penalty(critic, real_images=IMAGES, fake_images=IMAGES[:1]),
            "gradient_penalty: `fake_images` must be of shape (2, 3), but got fake_images of shape (1, 3).",
        ),
        (
            lambda: gradient_penalty(critic, real_images=IMAGES, fake_images=IMAGES, interpolation=torch.zeros(3)),
            "gradient_penalty: `interpolation` must be of shape (2,), but got interpolation of shape (3,).",
        ),
        (
            lambda: gradient_penalty(lambda x: x.sum(), real_images=IMAGES, fake_images=IMAGES),
            "gradient_penalty: `logits` must be of shape (2, ...), but got logits of shape (). "
            "Every image has its own.",
        ),
    ],
)
def test_rejects_wrong_arguments_by_name(call: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gradient_penalty(critic, real_images=IMAGES, fake_images=None),
            "gradient_penalty: `fake_images` must be a tensor, but got fake_images of type NoneType.",
        ),
        (
            lambda: gradient_penalty(critic, real_images=IMAGES, fake_images=IMAGES, interpolation=0.5),
            "gradient_penalty: `interpolation` must be a tensor, but got interpolation of type float.",
        ),
        (
            lambda: zero_centered_penalty(IMAGES.clone().requires_grad_(), None),
            "zero_centered_penalty: `logits` must be a tensor, or a sequence of tensors, but got logits of type "
            "NoneType.",
        ),
        (
            lambda: r1_penalty(lambda x: [x.sum(1), None], IMAGES),
            "r1_penalty: `logits` must be a tensor, or a sequence of tensors, but got logits of type list. It holds "
            "one of type NoneType.",
        ),
    ],
)
def test_rejects_arguments_of_another_kind(call: Callable[[], object], message: str):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda images: r1_penalty(lambda x: x.float().sum(1), images),
        lambda images: gradient_penalty(lambda x: x.float().sum(1), real_images=images, fake_images=images),
    ],
)
def test_rejects_images_of_bytes(call):
    with pytest.raises(TypeError, match=r"images` must be of a real floating dtype, but got"):
        call(torch.zeros(2, 3, dtype=torch.uint8))


def test_a_discriminator_and_images_that_are_swapped_are_noticed():
    with pytest.raises(TypeError, match=r"^r1_penalty: `images` must be a tensor, but got images of type Linear\.$"):
        r1_penalty(torch.zeros(2, 3), nn.Linear(3, 1))


@pytest.mark.parametrize("name", ["interval", "update"])
@pytest.mark.parametrize("value", [math.nan, 1.5])
def test_a_lazy_schedule_counts_in_whole_updates(name: str, value: float):
    with pytest.raises(TypeError, match=rf"^lazy_coefficient: `{name}` must be a whole number, but got {name} of type"):
        lazy_coefficient(1.0, **{"interval": 4, "update": 0, name: value})


def test_a_lazy_coefficient_is_a_number():
    with pytest.raises(
        ValueError, match=r"^lazy_coefficient: `coefficient` must be at least 0, but got coeffi.*=nan\.$"
    ):
        lazy_coefficient(math.nan, interval=4, update=0)
