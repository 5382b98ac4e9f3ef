"""The parts of SN-GAN's, SA-GAN's and BigGAN's networks that are the same in all three.

Their generators differ in how z and the class reach the blocks, which is left to the recipe; their discriminators only
in their tables.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from gan_blocks import (
    CrossReplicaBatchNorm2d,
    ProjectionHead,
    ResidualDiscriminatorBlock,
    ResidualGeneratorBlock,
    SelfAttention2d,
    upsample_bilinear,
    upsample_nearest,
)
from recipes.families.layers import LayerFactories
from recipes.families.residual_config import ResidualFields

__all__ = ["ResidualDiscriminator", "ResidualGenerator"]


class ResidualGenerator(nn.Module):
    """A linear layer to 4x4 pixels, a residual block for each doubling, norm, ReLU, convolution and tanh.

    A recipe's generator inherits it, and gives :meth:`render` what its first layer and its blocks are told.

    Attributes:
        stem: The linear layer.
        blocks: All residual blocks, ``blocks_per_stage`` of them for each doubling.
        attention: Non-local blocks by the height that they stand at, each after the blocks of its stage.
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
    ) -> None:
        super().__init__()
        widths = [width * config.channels for width in config.generator_widths]
        block = partial(
            ResidualGeneratorBlock,
            norm_layer=norm_layer,
            resample=upsample_bilinear if config.upsampling == "bilinear" else upsample_nearest,
            kernel_size=config.generator_kernel_size,
            dilation=config.generator_dilation,
            conv_layer=layers.conv2d,
        )
        self.blocks_per_stage = config.blocks_per_stage
        self.stem = layers.linear(stem_features, widths[0] * 4 * 4)
        self.blocks = nn.ModuleList()
        self.attention = nn.ModuleDict()
        self.attention_after: dict[int, str] = {}
        size = 4
        for in_channels, out_channels in pairwise(widths):
            size = 2 * size
            self.blocks.append(block(in_channels, out_channels, upsample=True))
            self.blocks.extend(block(out_channels, out_channels) for _ in range(1, config.blocks_per_stage))
            if size in config.generator_attention:
                self.attention[str(size)] = SelfAttention2d(out_channels, conv_layer=layers.conv2d)
                self.attention_after[len(self.blocks) - 1] = str(size)
        self.norm = last_norm_layer(widths[-1])
        self.to_rgb = layers.conv2d(widths[-1], config.image_channels, 3, padding=1)

    def render(self, stem_input: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        """Images in [-1, 1] from the input of the first layer and a condition for each doubling."""
        h: Tensor = rearrange(self.stem(stem_input), "batch (c h w) -> batch c h w", h=4, w=4)
        for number, block in enumerate(self.blocks):
            h = block(h, conditions[number // self.blocks_per_stage])
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
        blocks: All residual blocks, ``blocks_per_stage`` of them for each width; the first has no activation in front.
        attention: Non-local blocks by the height that they stand at, each after the first stage that arrives there.
        head: The score and the class embeddings.
    """

    def __init__(
        self,
        config: ResidualFields,
        *,
        layers: LayerFactories,
        dropout: float = 0.0,
        embedding_layer: Callable[[int, int], nn.Module] | None = None,  # default: a table of D's own
    ) -> None:
        super().__init__()
        widths = [width * config.channels for width in config.discriminator_widths]
        # With statistics of the batch there is no buffer, which a second call before the backward pass would change.
        batch_norm = partial(CrossReplicaBatchNorm2d, statistics="batch")
        block = partial(
            ResidualDiscriminatorBlock,
            norm_layer=batch_norm if config.discriminator_norm == "batch" else nn.Identity,
            kernel_size=config.discriminator_kernel_size,
            dilation=config.discriminator_dilation,
            conv_layer=layers.conv2d,
        )
        self.blocks = nn.ModuleList()
        self.attention = nn.ModuleDict()
        self.attention_after: dict[int, str] = {}
        size = config.resolution
        for in_channels, out_channels in pairwise([config.image_channels, *widths]):
            downsample = size > config.discriminator_final_size
            size = size // 2 if downsample else size
            first = len(self.blocks) == 0
            self.blocks.append(block(in_channels, out_channels, downsample=downsample, preactivation=not first))
            self.blocks.extend(block(out_channels, out_channels) for _ in range(1, config.blocks_per_stage))
            if downsample and size in config.discriminator_attention:
                self.attention[str(size)] = SelfAttention2d(out_channels, conv_layer=layers.conv2d)
                self.attention_after[len(self.blocks) - 1] = str(size)
        self.dropout = nn.Dropout(dropout)
        self.head = ProjectionHead(
            widths[-1],
            config.num_classes,
            linear_layer=layers.linear,
            embedding_layer=embedding_layer or layers.embedding,
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Judge each image."""
        h = images
        for number, block in enumerate(self.blocks):
            h = block(h)
            if number in self.attention_after:
                h = self.attention[self.attention_after[number]](h)
        features = reduce(F.relu(h), "batch c h w -> batch c", "sum")
        logits: Tensor = self.head(self.dropout(features), labels)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))  # losses are averaged in float32
