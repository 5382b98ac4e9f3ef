import pytest
import torch
from torch import Tensor, nn

from gan_blocks import SelfAttention2d, gradient_penalty, r1_penalty, twice_differentiable, zero_centered_penalty


class AttentiveDiscriminator(nn.Module):
    """Attention whose map is the logits, a patch each."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention2d(8)
        nn.init.ones_(self.attention.gamma)

    def forward(self, images: Tensor) -> Tensor:
        return self.attention(images).square().sum(1)


def test_r1_passes_through_attention(rng: torch.Generator):
    discriminator, images = (
        AttentiveDiscriminator().double(),
        torch.randn(2, 8, 4, 4, dtype=torch.float64, generator=rng),
    )
    r1_penalty(discriminator, images).backward()
    assert discriminator.attention.theta.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_the_penalty_of_the_losss_own_logits_is_r1(dtype: torch.dtype, tolerance: float, rng: torch.Generator):
    """Both with their gradients, for a loss on the same graph."""
    gradients = []
    images = torch.randn(2, 8, 4, 4, dtype=torch.float64, generator=rng).to(dtype)
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
