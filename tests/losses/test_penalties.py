import math
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks import (
    SelfAttention2d,
    clip_weights_,
    drift_penalty,
    gradient_penalty,
    lazy_coefficient,
    mode_seeking_penalty,
    r1_penalty,
    spectral_norm,
    twice_differentiable,
    zero_centered_penalty,
)
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


class AttentiveDiscriminator(nn.Module):
    """Attention whose map is the logits, a patch each."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention2d(8)
        nn.init.ones_(self.attention.gamma)

    def forward(self, images: Tensor) -> Tensor:
        return self.attention(images).square().sum(1)


def test_r1_passes_through_attention(rng: torch.Generator):
    discriminator, images = AttentiveDiscriminator().double(), random_images(2, 8, 4, 4, rng=rng)
    r1_penalty(discriminator, images).backward()
    assert discriminator.attention.theta.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_the_penalty_of_the_losss_own_logits_is_r1(dtype: torch.dtype, tolerance: float, rng: torch.Generator):
    """Both with their gradients, for a loss on the same graph."""
    gradients = []
    images = random_images(2, 8, 4, 4, rng=rng).to(dtype)
    discriminator = AttentiveDiscriminator().to(dtype)
    for reuse in (True, False):
        discriminator.zero_grad()
        images = images.detach().requires_grad_(reuse)
        with twice_differentiable():
            logits = discriminator(images)
        penalty = zero_centered_penalty(images, logits, 2.0) if reuse else r1_penalty(discriminator, images, 2.0)
        (logits.mean() + penalty).backward()
        gradients.append([penalty, *(parameter.grad for parameter in discriminator.parameters())])
    for reused, own in zip(*gradients, strict=True):
        assert own.abs().max() > 0
        torch.testing.assert_close(reused, own, rtol=tolerance, atol=tolerance)


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


def test_without_the_context_one_sentence_names_it(rng: torch.Generator):
    images = torch.randn(2, 8, 4, 4, generator=rng, requires_grad=True)
    logits = AttentiveDiscriminator()(images)
    with pytest.raises(
        ValueError, match=r"^zero_centered_penalty: .* inside `with gan_blocks\.twice_differentiable\(\):`\.$"
    ):
        zero_centered_penalty(images, logits)


@pytest.mark.parametrize(("door", "loss_scale"), [("r1", 2.0**40), ("logits", 2.0**40), ("wgan-gp", 1.0)])
def test_slopes_below_the_least_float16_are_not_lost_under_autocast(door: str, loss_scale: float, rng: torch.Generator):
    first, second = nn.Linear(16, 16, bias=False), nn.Linear(16, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(1e-5 * torch.randn(16, 16, generator=rng))
        second.weight.copy_(1e-4 * torch.randn(1, 16, generator=rng))
    images = torch.randn(4, 16, generator=rng)

    def discriminator(images: Tensor) -> Tensor:
        return second(first(images)).squeeze(1)

    def value() -> Tensor:
        if door == "r1":
            return r1_penalty(discriminator, images)
        if door == "logits":
            own = images.clone().requires_grad_()
            return zero_centered_penalty(own, discriminator(own))
        return gradient_penalty(
            discriminator, real_images=images, fake_images=-images, target=1e-6, interpolation=torch.zeros(4)
        )

    gradients = []
    for half in (False, True):
        first.zero_grad()
        with torch.autocast("cpu", torch.float16, enabled=half):
            penalty = value()
        (loss_scale * penalty).backward()  # as a GradScaler would
        gradients.append((penalty, first.weight.grad.clone()))
    assert gradients[0][0].item() > 0
    for exact, half in zip(*gradients, strict=True):
        torch.testing.assert_close(half, exact, rtol=0.02, atol=0.02 * exact.abs().max().item())


def test_slopes_too_large_for_their_factor_are_computed_with_a_smaller_one():
    images = torch.ones(2, 3)
    weight = torch.full((1, 3), 100.0)
    with torch.autocast("cpu", torch.float16):
        penalty = r1_penalty(lambda x: nn.functional.linear(x, weight), images, gamma=2.0)
    assert penalty.item() == pytest.approx(3e4, rel=1e-3)


@given(coefficient=st.floats(0, 100), interval=st.integers(1, 20), start=st.integers(0, 5))
def test_a_lazy_coefficient_keeps_its_mean_over_updates(coefficient: float, interval: int, start: int):
    updates = range(start * interval, (start + 3) * interval)
    values = [lazy_coefficient(coefficient, interval=interval, update=update) for update in updates]
    assert sum(values) / len(values) == pytest.approx(coefficient)
    assert [update for update, value in zip(updates, values, strict=True) if value] == (
        [update for update in updates if update % interval == 0] if coefficient else []
    )


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


# --- drift ---


@given(real=st.lists(st.floats(-10, 10), min_size=1, max_size=8), coefficient=st.floats(1e-4, 1))
def test_drift_equals_the_mean_of_squared_outputs(real: list[float], coefficient: float):
    value = drift_penalty(real_logits=torch.tensor(real, dtype=torch.float64), coefficient=coefficient)
    assert value.item() == pytest.approx(reference.drift_penalty(real, coefficient), abs=1e-12)


def test_gradients_of_drift_agree_with_finite_differences(rng: torch.Generator):
    logits = torch.randn(4, dtype=torch.float64, generator=rng, requires_grad=True)
    assert torch.autograd.gradcheck(lambda real: drift_penalty(real_logits=real, coefficient=0.5), (logits,))


# --- mode seeking ---


def pairs(rng: torch.Generator, batch: int = 3) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    first, second = (random_images(batch, 1, 2, 2, rng=rng).requires_grad_() for _ in range(2))
    return (first, second), (random_images(batch, 5, rng=rng), random_images(batch, 5, rng=rng))


@given(batch=st.integers(1, 4), eps=st.floats(1e-5, 1), seed=seeds)
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


# --- clipping ---


def test_clipping_limits_every_parameter_and_leaves_small_ones_alone():
    critic = nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.Linear(4, 1))
    parameters = list(critic.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.linspace(-0.05, 0.04, parameter.numel()).reshape(parameter.shape))
    before = [parameter.detach().clone() for parameter in parameters]
    clip_weights_(critic, bound=0.02)
    for parameter, old in zip(parameters, before, strict=True):
        expected = [max(-0.02, min(0.02, value)) for value in old.flatten().tolist()]
        assert parameter.flatten().tolist() == pytest.approx(expected, abs=1e-9)


def test_clipping_counts_as_an_update_of_a_normalized_weight():
    layer = spectral_norm(nn.Linear(3, 4), warmup_iterations=0)
    before = layer.parametrizations.weight[0].u.clone()
    clip_weights_(layer)
    _ = layer.weight
    assert not torch.equal(layer.parametrizations.weight[0].u, before)


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
        (
            lambda: drift_penalty(real_logits=torch.zeros(2), coefficient=0),
            "drift_penalty: `coefficient` must be greater than 0, but got coefficient=0.",
        ),
        (
            lambda: drift_penalty(real_logits=torch.zeros(2, 1)),
            "drift_penalty: `real_logits` must be of shape (batch,) with at least one sample, "
            "but got real_logits of shape (2, 1).",
        ),
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
        (
            lambda: clip_weights_(nn.Linear(2, 1), bound=0),
            "clip_weights_: `bound` must be greater than 0, but got bound=0.",
        ),
    ],
)
def test_rejects_wrong_arguments_by_name(call: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_slopes_do_not_underflow_where_logits_were_cast_up_and_the_context_has_ended():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(), nn.Conv2d(8, 1, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2e-4)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expected = zero_centered_penalty(images, net(images))
    with torch.autocast("cpu", dtype=torch.float16):
        logits = net(images).float()
    assert zero_centered_penalty(images, logits).item() == pytest.approx(expected.item(), rel=0.01)


def test_inference_mode_is_named():
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"^r1_penalty: slopes need autograd, which torch\."):
        r1_penalty(lambda x: x.sum(1), torch.zeros(2, 3))


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


@pytest.mark.parametrize(("name", "low"), [("interval", 1), ("update", 0)])
def test_a_lazy_schedule_without_a_number_is_refused(name: str, low: int):
    values = {"interval": 4, "update": 0, name: math.nan}
    with pytest.raises(ValueError, match=rf"^lazy_coefficient: `{name}` must be at least {low}, but got {name}=nan\.$"):
        lazy_coefficient(1.0, **values)


@pytest.mark.parametrize("name", ["fake_images", "z"])
def test_mode_seeking_wants_pairs(name: str):
    pairs = {"fake_images": (torch.zeros(2, 5),) * 2, "z": (torch.zeros(2, 3),) * 2, name: ()}
    rule = rf"^mode_seeking_penalty: `{name}` must be two tensors, but got {name}=\(\)\.$"
    with pytest.raises(ValueError, match=rule):
        mode_seeking_penalty(**pairs)
