"""DC-GAN's two networks, whose critic the Wasserstein GANs take without its batch normalization.

Tested in ``tests/recipes/test_plain_recipes.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from gan_blocks import CrossReplicaBatchNorm2d, PlainDiscriminatorBlock, PlainGeneratorBlock, UnconditionalHead
from gan_blocks.engine import LatentFields, require, require_positive

__all__ = ["PlainDiscriminator", "PlainFields", "PlainGenerator"]

INITIAL_DEVIATION = 0.02  # of all weights (Radford et al. 2015, section 4)


@dataclass(frozen=True)
class PlainFields(LatentFields):
    """Networks of strided convolutions."""

    help_group: ClassVar[str] = "networks"

    num_classes: int = 1
    """1: these networks have no classes; those of the data are taken as one."""
    widths: tuple[int, ...] = (128, 64, 32)
    """Channels of G at 4x4, 8x8, ... up to half of the resolution; D has the same in reverse order."""

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or two of them do not go together.
        """
        super().__post_init__()
        require(self, "num_classes", self.num_classes == 1, "1 (these networks have no classes)")
        require_positive(self, "widths")
        size = 4 * 2 ** len(self.widths)
        require(self, "resolution", self.resolution == size, f"{size}, which is 4 doubled once for each of --widths")


class PlainGenerator(nn.Module):
    """A linear layer to 4x4 pixels, a transposed convolution for each doubling, tanh; batch norm and ReLU between.

    Shape:
        - z: ``(batch, latent_dim)``
        - labels: ``(batch,)``, not looked at
        - returns: ``(batch, image_channels, resolution, resolution)``, in [-1, 1]
    """

    def __init__(self, config: PlainFields) -> None:
        super().__init__()
        conv = _initialized(nn.ConvTranspose2d)
        # A bias in front of batch norm would be subtracted with the mean.
        self.stem = _initialized(nn.Linear)(config.latent_dim, config.widths[0] * 4 * 4, bias=False)
        self.norm = CrossReplicaBatchNorm2d(config.widths[0])
        self.blocks = nn.ModuleList(
            PlainGeneratorBlock(before, after, conv_transpose_layer=partial(conv, bias=False))
            for before, after in pairwise(config.widths)
        )
        self.to_rgb = PlainGeneratorBlock(
            config.widths[-1],
            config.image_channels,
            conv_transpose_layer=conv,
            norm_layer=nn.Identity,
            act_layer=nn.Tanh,
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Generate one image for each row of ``z``."""
        h: Tensor = rearrange(self.stem(z), "batch (c h w) -> batch c h w", h=4, w=4)
        h = torch.relu(self.norm(h))
        for block in self.blocks:
            h = block(h)
        images: Tensor = self.to_rgb(h)
        return images


class PlainDiscriminator(nn.Module):
    """A convolution for each halving down to 4x4 pixels, leaky ReLU, and a linear layer of all that is left.

    Shape:
        - images: ``(batch, image_channels, resolution, resolution)``, in [-1, 1]
        - labels: ``(batch,)``, not looked at
        - returns: ``(batch,)``, larger for more real
    """

    def __init__(self, config: PlainFields, *, norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        conv = _initialized(nn.Conv2d)
        inner = conv if norm_layer is nn.Identity else partial(conv, bias=False)
        first, *widths = reversed(config.widths)
        self.blocks = nn.ModuleList(
            [
                PlainDiscriminatorBlock(config.image_channels, first, conv_layer=conv, norm_layer=nn.Identity),
                *(
                    PlainDiscriminatorBlock(before, after, conv_layer=inner, norm_layer=norm_layer)
                    for before, after in pairwise([first, *widths])
                ),
            ]
        )
        self.head = UnconditionalHead(config.widths[0] * 4 * 4, linear_layer=_initialized(nn.Linear))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        """Judge each image."""
        h = images
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.head(rearrange(h, "batch c h w -> batch (c h w)"))
        return logits


def _initialized(layer: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A factory of layers whose weights start as DC-GAN's, and their biases at zero."""

    def build(*sizes: int, **options: int) -> nn.Module:
        built = layer(*sizes, **options)
        for name, parameter in built.named_parameters():
            if name == "weight":
                nn.init.normal_(parameter, std=INITIAL_DEVIATION)
            else:
                nn.init.zeros_(parameter)
        return built

    return build
