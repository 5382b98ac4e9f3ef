"""The clamp through a whole training: a small SN-GAN without batch normalization, on 8x8 images of soft discs."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from gan_blocks import (
    BottleneckDiscriminatorBlock,
    SigmaClamp,
    advance_power_iteration,
    clamp_sigma,
    downsample_average,
    hinge_discriminator_loss,
    hinge_generator_loss,
    init_orthogonal_,
    spectral_norm,
    upsample_nearest,
)

BATCH = 8


def clamped(layer: nn.Module) -> nn.Module:
    return spectral_norm(clamp_sigma(init_orthogonal_(layer), ratio=1.0))


def conv(in_channels: int, out_channels: int, kernel_size: int, padding: int = 0, bias: bool = True) -> nn.Module:
    return clamped(nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=bias))


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = clamped(nn.Linear(16, 16 * 4 * 4))
        self.convs = nn.ModuleList([conv(16, 16, 3, padding=1), conv(16, 16, 3, padding=1)])
        self.to_rgb = conv(16, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = rearrange(self.stem(z), "b (c h w) -> b c h w", h=4, w=4)
        h = upsample_nearest(F.relu(self.convs[0](h)))
        return torch.tanh(4 * self.to_rgb(F.relu(self.convs[1](h))))


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, padding=1)
        self.block = BottleneckDiscriminatorBlock(16, 16, downsample=True, conv_layer=conv)
        self.last = conv(16, 16, 3, padding=1)
        self.head = spectral_norm(init_orthogonal_(nn.Linear(16, 1)))  # a row has one singular value: nothing to clamp

    def forward(self, images: Tensor) -> Tensor:
        h = F.relu(self.last(downsample_average(self.block(self.stem(images)))))
        return self.head(reduce(h, "b c h w -> b c", "sum")).squeeze(1)


def discs(rng: torch.Generator) -> Tensor:
    """Bright discs somewhere on dark ground."""
    grid = torch.linspace(-1, 1, 8)
    y, x = (2 * torch.rand(BATCH, 1, generator=rng) - 1 - grid for _ in range(2))
    height = 1 - 2 * (y.square()[:, :, None] + x.square()[:, None, :])
    return height.clamp(min=-1)[:, None].expand(-1, 3, -1, -1)


def ratio(weight: Tensor) -> float:
    sigmas = torch.linalg.svdvals(weight.detach().double().flatten(1))
    return (sigmas[0] / sigmas[1]).item()


@pytest.mark.slow
def test_a_clamp_to_the_second_singular_value_holds_in_every_layer_throughout_the_training_of_an_sn_gan(
    rng: torch.Generator,
):
    generator, discriminator = Generator(), Discriminator()
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.0, 0.9)) for network in (generator, discriminator)
    ]
    layers = {
        name: layer
        for name, layer in nn.ModuleDict({"generator": generator, "discriminator": discriminator}).named_modules()
        if hasattr(layer, "parametrizations") and isinstance(layer.parametrizations.weight[0], SigmaClamp)
    }
    assert len(layers) == 10
    raw_ratios = []
    for step in range(1, 201):
        fake = generator(torch.randn(BATCH, 16, generator=rng))
        loss = hinge_discriminator_loss(real_logits=discriminator(discs(rng)), fake_logits=discriminator(fake.detach()))
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        advance_power_iteration(discriminator)
        loss = hinge_generator_loss(fake_logits=discriminator(fake))
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        advance_power_iteration(generator)
        if step % 10 == 0:
            ratios = {name: ratio(layer.weight) for name, layer in layers.items()}
            assert max(ratios.values()) <= 1.05, (step, ratios)
            raw_ratios += [ratio(layer.parametrizations.weight.original) for layer in layers.values()]
    # Without this, the clamp would have had nothing to do.
    assert max(raw_ratios) > 1.1
