"""Networks and data of the cookbook, gray pictures of 16x16 pixels in ten classes; the other files train them."""

from copy import deepcopy
from functools import partial

import torch
from torch import nn

from gan_blocks import (
    ConditionalBatchNorm2d,
    ProjectionHead,
    ResidualDiscriminatorBlock,
    ResidualGeneratorBlock,
    SharedEmbedding,
    init_orthogonal_,
    normalized_layer,
    standing_statistics,
)

conv, linear, embedding = map(normalized_layer, (nn.Conv2d, nn.Linear, nn.Embedding))


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = init_orthogonal_(SharedEmbedding(10, 16))
        norm = partial(ConditionalBatchNorm2d, condition_dim=16 + 16, linear_layer=linear)
        block = partial(ResidualGeneratorBlock, upsample=True, norm_layer=norm, conv_layer=conv)
        self.stem = linear(16 + 16, 32 * 4 * 4)
        self.blocks = nn.ModuleList([block(32, 16), block(16, 8)])
        self.to_image = nn.Sequential(nn.ReLU(), conv(8, 1, 3, padding=1), nn.Tanh())

    def forward(self, z, labels):  # (batch, 16), (batch,) -> (batch, 1, 16, 16) in [-1, 1]
        condition = torch.cat([z, self.embedding(labels)], dim=1)
        x = self.stem(condition).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x = block(x, condition)
        return self.to_image(x)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        block = partial(ResidualDiscriminatorBlock, downsample=True, conv_layer=conv)
        self.features = nn.Sequential(block(1, 16, preactivation=False), block(16, 32), nn.ReLU())
        self.head = ProjectionHead(32, 10, linear_layer=linear, embedding_layer=embedding)

    def forward(self, images, labels):  # -> logits (batch,), larger = more real
        return self.head(self.features(images).sum(dim=(2, 3)), labels)


def pictures(number):  # stands in for yours: noise that is brighter the higher the class
    labels = torch.randint(10, (number,))
    return (0.15 * labels[:, None, None, None] - 0.7 + 0.2 * torch.randn(number, 1, 16, 16)).clamp(-1, 1), labels


def print_brightness(average, prior):  # of the images of each class, drawn from the average of G
    sampler = deepcopy(average.module)  # the average itself stays as it is
    device = next(sampler.parameters()).device
    z, labels = partial(prior.sample, 100, device=device), torch.arange(10, device=device).repeat(10)
    standing_statistics(sampler, ((z(), labels) for _ in range(8)))
    with torch.no_grad():
        images = sampler(z(), labels)
    print("brightness of the classes:", *(f"{value:.2f}" for value in images.view(10, 10, -1).mean(dim=(0, 2))))
