import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import hinge_discriminator_loss, hinge_generator_loss
from tests.reference import losses as reference

logits = st.lists(st.floats(-10, 10), min_size=1, max_size=8)


@given(real=logits, fake=logits, margin=st.floats(0.1, 3))
def test_hinge_discriminator_loss_equals_the_sum_over_samples(real: list[float], fake: list[float], margin: float):
    loss = hinge_discriminator_loss(
        real_logits=torch.tensor(real, dtype=torch.float64),
        fake_logits=torch.tensor(fake, dtype=torch.float64),
        margin=margin,
    )
    assert loss.item() == pytest.approx(reference.hinge_discriminator_loss(real, fake, margin), abs=1e-12)


@given(fake=logits)
def test_hinge_generator_loss_equals_the_negative_mean(fake: list[float]):
    loss = hinge_generator_loss(fake_logits=torch.tensor(fake, dtype=torch.float64))
    assert loss.item() == pytest.approx(reference.hinge_generator_loss(fake), abs=1e-12)


@given(distance=st.floats(0, 5), margin=st.floats(0.1, 3))
def test_a_critic_beyond_the_margin_has_zero_loss_and_zero_gradient(distance: float, margin: float):
    real = torch.full((3,), margin + distance, dtype=torch.float64, requires_grad=True)
    fake = torch.full((2,), -margin - distance, dtype=torch.float64, requires_grad=True)
    loss = hinge_discriminator_loss(real_logits=real, fake_logits=fake, margin=margin)
    loss.backward()
    assert loss.item() == 0
    assert not real.grad.any()
    assert not fake.grad.any()


def test_gradients_agree_with_finite_differences(rng: torch.Generator):
    real, fake = (torch.randn(4, dtype=torch.float64, generator=rng, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda r, f: hinge_discriminator_loss(real_logits=r, fake_logits=f, margin=0.7), (real, fake)
    )
    assert torch.autograd.gradcheck(lambda f: hinge_generator_loss(fake_logits=f), (fake,))


@pytest.mark.parametrize("shape", [(0,), (2, 1), ()])
def test_rejects_logits_that_are_not_one_value_per_sample(shape: tuple[int, ...]):
    pattern = (
        rf"^hinge_generator_loss: `fake_logits` must be of shape \(batch,\) with at least one sample, "
        rf"but got fake_logits of shape \({', '.join(map(str, shape))},?\)\.$"
    )
    with pytest.raises(ValueError, match=pattern):
        hinge_generator_loss(fake_logits=torch.zeros(shape))


def test_rejects_a_margin_of_zero():
    with pytest.raises(
        ValueError, match=r"^hinge_discriminator_loss: `margin` must be greater than 0, but got margin=0\.$"
    ):
        hinge_discriminator_loss(real_logits=torch.zeros(1), fake_logits=torch.zeros(1), margin=0)
