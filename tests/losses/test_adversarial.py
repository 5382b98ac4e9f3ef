from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gan_blocks
from gan_blocks import (
    bce_discriminator_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    minimax_generator_loss,
    non_saturating_generator_loss,
    wasserstein_discriminator_loss,
    wasserstein_generator_loss,
)
from tests.reference import losses as reference

logits = st.lists(st.floats(-10, 10), min_size=1, max_size=8)
names = [name for name in gan_blocks.__all__ if name.endswith(("_generator_loss", "_discriminator_loss"))]

DISCRIMINATOR_LOSSES: list[tuple[Callable[..., Tensor], Callable[[list[float], list[float]], float]]] = [
    (bce_discriminator_loss, reference.minimax_discriminator_loss),
    (wasserstein_discriminator_loss, reference.wasserstein_discriminator_loss),
    (least_squares_discriminator_loss, reference.least_squares_discriminator_loss),
]
GENERATOR_LOSSES: list[tuple[Callable[..., Tensor], Callable[[list[float]], float]]] = [
    (hinge_generator_loss, reference.hinge_generator_loss),
    (minimax_generator_loss, reference.minimax_generator_loss),
    (non_saturating_generator_loss, reference.non_saturating_generator_loss),
    (wasserstein_generator_loss, reference.wasserstein_generator_loss),
    (least_squares_generator_loss, reference.least_squares_generator_loss),
]


@given(real=logits, fake=logits, margin=st.floats(0.1, 3))
def test_hinge_discriminator_loss_equals_the_sum_over_samples(real: list[float], fake: list[float], margin: float):
    loss = hinge_discriminator_loss(
        real_logits=torch.tensor(real, dtype=torch.float64),
        fake_logits=torch.tensor(fake, dtype=torch.float64),
        margin=margin,
    )
    assert loss.item() == pytest.approx(reference.hinge_discriminator_loss(real, fake, margin), abs=1e-12)


@pytest.mark.parametrize(("loss", "expected"), DISCRIMINATOR_LOSSES)
@given(real=logits, fake=logits)
def test_discriminator_losses_equal_the_sum_over_samples(loss, expected, real: list[float], fake: list[float]):
    value = loss(
        real_logits=torch.tensor(real, dtype=torch.float64), fake_logits=torch.tensor(fake, dtype=torch.float64)
    )
    assert value.item() == pytest.approx(expected(real, fake), abs=1e-10)


@given(real=logits, fake=logits, weight=st.floats(0.01, 3))
def test_generated_images_may_weigh_less_in_least_squares(real: list[float], fake: list[float], weight: float):
    loss = least_squares_discriminator_loss(
        real_logits=torch.tensor(real, dtype=torch.float64),
        fake_logits=torch.tensor(fake, dtype=torch.float64),
        fake_weight=weight,
    )
    on_real = sum((value - 1) ** 2 for value in real) / (2 * len(real))
    on_fake = sum(value**2 for value in fake) / (2 * len(fake))
    assert loss.item() == pytest.approx(on_real + weight * on_fake, abs=1e-10)


@pytest.mark.parametrize(("loss", "expected"), GENERATOR_LOSSES)
@given(fake=logits)
def test_generator_losses_equal_the_sum_over_samples(loss, expected, fake: list[float]):
    value = loss(fake_logits=torch.tensor(fake, dtype=torch.float64))
    assert value.item() == pytest.approx(expected(fake), abs=1e-10)


@given(distance=st.floats(0, 5), margin=st.floats(0.1, 3))
def test_a_critic_beyond_the_margin_has_zero_loss_and_zero_gradient(distance: float, margin: float):
    real = torch.full((3,), margin + distance, dtype=torch.float64, requires_grad=True)
    fake = torch.full((2,), -margin - distance, dtype=torch.float64, requires_grad=True)
    loss = hinge_discriminator_loss(real_logits=real, fake_logits=fake, margin=margin)
    loss.backward()
    assert loss.item() == 0
    assert not real.grad.any()
    assert not fake.grad.any()


@pytest.mark.parametrize("name", names)
def test_gradients_agree_with_finite_differences(name: str, rng: torch.Generator):
    loss = getattr(gan_blocks, name)
    real, fake = (torch.randn(4, dtype=torch.float64, generator=rng, requires_grad=True) for _ in range(2))
    if name.endswith("_generator_loss"):
        assert torch.autograd.gradcheck(lambda f: loss(fake_logits=f), (fake,))
    else:
        assert torch.autograd.gradcheck(lambda r, f: loss(real_logits=r, fake_logits=f), (real, fake))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", names)
def test_losses_of_narrow_logits_are_those_of_the_same_in_float32(name: str, dtype: torch.dtype, rng: torch.Generator):
    """In float16 the square of 400 would overflow, in bfloat16 a mean would have three digits."""
    real, fake = ((100 * torch.randn(2048, generator=rng)).to(dtype) for _ in range(2))
    real[0] = fake[0] = 400
    narrow, wide = call(name, real, fake), call(name, real.float(), fake.float())
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, wide)


@pytest.mark.parametrize("name", names)
def test_a_more_convincing_critic_lowers_its_loss_and_a_more_convincing_image_lowers_the_generators(name: str):
    loss = getattr(gan_blocks, name)
    real, fake = (torch.zeros(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    if name.endswith("_generator_loss"):
        loss(fake_logits=fake).backward()
        assert (fake.grad < 0).all()
    else:
        loss(real_logits=real + 0.5, fake_logits=fake + 0.5).backward()
        assert (real.grad < 0).all()
        assert (fake.grad > 0).all()


@pytest.mark.parametrize(("loss", "gradient"), [(minimax_generator_loss, 0.0), (non_saturating_generator_loss, -1.0)])
def test_where_an_image_is_surely_generated_only_the_saturating_loss_has_no_gradient(loss, gradient: float):
    fake = torch.tensor([-1000.0], requires_grad=True)
    value = loss(fake_logits=fake)
    value.backward()
    assert value.isfinite()
    assert fake.grad.item() == gradient


def call(name: str, real: object, fake: object, **options: object) -> Tensor:
    reals = {} if name.endswith("_generator_loss") else {"real_logits": real}
    return getattr(gan_blocks, name)(fake_logits=fake, **reals, **options)


@pytest.mark.parametrize("name", names)
def test_logits_of_any_shape_are_averaged_over_all_of_them(name: str, rng: torch.Generator):
    real, fake = (torch.randn(2, 1, 3, 4, dtype=torch.float64, generator=rng) for _ in range(2))
    flat = call(name, real.flatten(), fake.flatten())
    torch.testing.assert_close(call(name, real, fake), flat)
    torch.testing.assert_close(call(name, real, fake, reduction="sum"), 24 * flat)
    each = call(name, real, fake, reduction="none")
    assert each.shape == real.shape
    torch.testing.assert_close(each.mean(), flat)


@pytest.mark.parametrize("name", names)
def test_the_losses_of_several_scales_are_added(name: str, rng: torch.Generator):
    reals, fakes = ([torch.randn(2, *shape, generator=rng) for shape in ((1,), (1, 4, 4))] for _ in range(2))
    for reduction in ("mean", "sum"):
        single = [call(name, real, fake, reduction=reduction) for real, fake in zip(reals, fakes, strict=True)]
        torch.testing.assert_close(call(name, reals, tuple(fakes), reduction=reduction), sum(single))


@pytest.mark.parametrize("name", names)
def test_rejects_logits_without_a_sample_and_reductions_that_there_are_not(name: str):
    owner, one, two = f"^{name}: ", torch.zeros(2), [torch.zeros(2), torch.zeros(2)]
    rule = r"`fake_logits` must be of shape \(batch, \.\.\.\) with at least one sample, but got fake_logits of shape"
    with pytest.raises(ValueError, match=owner + rule + r" \(0,\)\.$"):
        call(name, one, torch.zeros(0))
    with pytest.raises(ValueError, match=owner + "`fake_logits` must be a tensor, or a sequence of at least one"):
        call(name, one, [])
    with pytest.raises(ValueError, match=owner + "`reduction` must be mean, sum or none, but got reduction='max'"):
        call(name, one, one, reduction="max")
    with pytest.raises(ValueError, match=owner + "`reduction` must be mean or sum of several scales"):
        call(name, two, two, reduction="none")


@pytest.mark.parametrize("name", [name for name in names if name.endswith("_discriminator_loss")])
def test_rejects_batches_that_do_not_go_together(name: str):
    with pytest.raises(
        ValueError, match=rf"^{name}: `fake_logits` must be as many tensors as `real_logits`, 2, but got"
    ):
        call(name, [torch.zeros(2)] * 2, torch.zeros(2))
    pattern = rf'^{name}: `fake_logits` must be of shape \(2,\) with reduction="none", but got fake_logits of shape'
    with pytest.raises(ValueError, match=pattern + r" \(2, 1\)\.$"):
        call(name, torch.zeros(2), torch.zeros(2, 1), reduction="none")


def test_rejects_a_margin_of_zero():
    with pytest.raises(
        ValueError, match=r"^hinge_discriminator_loss: `margin` must be greater than 0, but got margin=0\.$"
    ):
        hinge_discriminator_loss(real_logits=torch.zeros(1), fake_logits=torch.zeros(1), margin=0)


def test_rejects_a_weight_of_zero():
    with pytest.raises(
        ValueError,
        match=r"^least_squares_discriminator_loss: `fake_weight` must be greater than 0, but got fake_weight=0\.$",
    ):
        least_squares_discriminator_loss(real_logits=torch.zeros(1), fake_logits=torch.zeros(1), fake_weight=0)


def test_rejects_numbers_in_the_place_of_scales():
    for numbers in ([1.0, 2.0], 3.0, None):
        with pytest.raises(TypeError, match=r"^hinge_generator_loss: `fake_logits` must be a tensor, or a sequence of"):
            hinge_generator_loss(fake_logits=numbers)


def test_the_scales_may_be_the_values_of_a_dictionary():
    scales = {"fine": torch.tensor([1.0]), "coarse": torch.tensor([3.0])}
    assert hinge_generator_loss(fake_logits=scales.values()) == -4
