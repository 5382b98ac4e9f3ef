"""The parts of SN-GAN's, SA-GAN's and BigGAN's networks that are the same in all three.

Their generators differ in how z and the class reach the blocks, which is left to the recipe; their discriminators only
in their tables. Tested in ``tests/recipes/test_residual_recipes.py``.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from gan_blocks import ProjectionHead, ResidualDiscriminatorBlock, ResidualGeneratorBlock, SelfAttention2d
from recipes.families.attention import attention_names
from recipes.families.layers import LayerFactories
from recipes.families.residual_config import ResidualFields

__all__ = ["ResidualDiscriminator", "ResidualGenerator"]


class ResidualGenerator(nn.Module):
    """A linear layer to 4x4 pixels, a residual block for each doubling, norm, ReLU, convolution and tanh.

    A recipe's generator inherits it, and gives :meth:`render` what its first layer and its blocks are told.

    Attributes:
        stem: The linear layer.
        blocks: The residual blocks, each of which doubles height and width.
        attention: Non-local blocks by the height that they stand at, each after the block that arrives there.
        norm: The last norm.
        to_rgb: The last convolution.
    """

    def __init__(
        self,
        config: ResidualFields,
        *,
        stem_features: int,
        norm_layer: Callable[[int], nn.Module],
        last_norm_layer: Callable[[int], nn.Module],
        layers: LayerFactories,
        block_layer: Callable[..., nn.Module] = ResidualGeneratorBlock,
    ) -> None:
        super().__init__()
        widths = [width * config.channels for width in config.generator_widths]
        self.stem = layers.linear(stem_features, widths[0] * 4 * 4)
        self.blocks = nn.ModuleList()
        self.attention = nn.ModuleDict()
        self.attention_after = attention_names(config.generator_attention, config.generator_heights)
        for number, (in_channels, out_channels) in enumerate(pairwise(widths)):
            self.blocks.append(
                block_layer(in_channels, out_channels, upsample=True, norm_layer=norm_layer, conv_layer=layers.conv2d)
            )
            if number in self.attention_after:
                attention = SelfAttention2d(out_channels, conv_layer=layers.conv2d)
                self.attention[self.attention_after[number]] = attention
        self.norm = last_norm_layer(widths[-1])
        self.to_rgb = layers.conv2d(widths[-1], config.image_channels, 3, padding=1)

    def render(self, stem_input: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        """Images in [-1, 1] from the input of the first layer and a condition for each block."""
        h: Tensor = rearrange(self.stem(stem_input), "batch (c h w) -> batch c h w", h=4, w=4)
        for number, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            h = block(h, condition)
            if number in self.attention_after:
                h = self.attention[self.attention_after[number]](h)
        return torch.tanh(self.to_rgb(F.relu(self.norm(h))))


class ResidualDiscriminator(nn.Module):
    """Residual blocks, ReLU, a sum over pixels and a projection head: from (image, class) to a logit.

    Shape:
        - images: ``(batch, image_channels, resolution, resolution)``, in [-1, 1]
        - labels: ``(batch,)``, int64
        - returns: ``(batch,)``, larger for more real

    Attributes:
        blocks: The residual blocks, one for each width; the first has no activation in front.
        attention: Non-local blocks by the height that they stand at, each after the first block that arrives there; a
            second of that height, ``"8_2"``, after the second.
        head: The score and the class embeddings.
    """

    def __init__(
        self,
        config: ResidualFields,
        *,
        layers: LayerFactories,
        block_layer: Callable[..., nn.Module] = ResidualDiscriminatorBlock,
    ) -> None:
        super().__init__()
        widths = [width * config.channels for width in config.discriminator_widths]
        self.blocks = nn.ModuleList()
        self.attention = nn.ModuleDict()
        heights = config.discriminator_heights
        self.attention_after = attention_names(config.discriminator_attention, heights)
        for number, (in_channels, out_channels) in enumerate(pairwise([config.image_channels, *widths])):
            before = heights[number - 1] if number else config.resolution
            self.blocks.append(
                block_layer(
                    in_channels,
                    out_channels,
                    downsample=heights[number] < before,
                    preactivation=number > 0,
                    conv_layer=layers.conv2d,
                )
            )
            if number in self.attention_after:
                attention = SelfAttention2d(out_channels, conv_layer=layers.conv2d)
                self.attention[self.attention_after[number]] = attention
        self.head = ProjectionHead(
            widths[-1], config.num_classes, linear_layer=layers.linear, embedding_layer=layers.embedding
        )

    def features(self, images: Tensor) -> Tensor:
        """What the head sees of each image, ``(batch, features)``."""
        h = images
        for number, block in enumerate(self.blocks):
            h = block(h)
            if number in self.attention_after:
                h = self.attention[self.attention_after[number]](h)
        return reduce(F.relu(h), "batch c h w -> batch c", "sum")

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Judge each image."""
        logits: Tensor = self.head(self.features(images), labels)
        return logits
