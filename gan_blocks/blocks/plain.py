"""DC-GAN's blocks: one strided convolution for each change of the resolution, without a shortcut.

Tested in ``tests/blocks/test_plain.py``.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from gan_blocks._checks import bad_shape, check_factories, check_feature_map, check_sizes
from gan_blocks.layers.activation import leaky_relu
from gan_blocks.layers.batchnorm import CrossReplicaBatchNorm2d

__all__ = ["PlainDiscriminatorBlock", "PlainGeneratorBlock"]

# D judges real and generated images by the statistics of their own batch, in eval mode too: there are no others.
_batch_statistics = partial(CrossReplicaBatchNorm2d, statistics="batch")


class PlainGeneratorBlock(nn.Module):
    r"""One doubling of DC-GAN's generator: a transposed convolution of stride 2.

    .. math:: y = A \circ N \circ \operatorname{conv}^\top_{4 \times 4,\, 2}\,(x)

    A filter of 4x4 with a stride of 2 adds as many terms to each pixel, so that there is no checkerboard of its own.
    The last block of a generator is ``PlainGeneratorBlock(width, 3, norm_layer=nn.Identity, act_layer=nn.Tanh)``.

    Differences from the paper: its Figure 1 has filters of 5x5.

    Args:
        in_channels: Channels of the input, at least 1.
        out_channels: Channels of the output, at least 1.
        conv_transpose_layer: Factory of the convolution, called like ``nn.ConvTranspose2d``.
        norm_layer: Factory of the normalization N, called as ``norm_layer(out_channels)``; by default
            :class:`CrossReplicaBatchNorm2d`.
        act_layer: Factory of the activation A, called without arguments; ReLU by default.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - returns: ``(batch, out_channels, 2 * height, 2 * width)``

    Raises:
        ValueError: If a width is not positive, or ``x`` has another shape.

    References:
        Radford et al. 2015, "Unsupervised Representation Learning with Deep Convolutional GANs", section 3.

    Example:
        >>> PlainGeneratorBlock(64, 32)(torch.randn(2, 64, 4, 4)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        conv_transpose_layer: Callable[..., nn.Module] = nn.ConvTranspose2d,
        norm_layer: Callable[[int], nn.Module] = CrossReplicaBatchNorm2d,
        act_layer: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        check_factories(
            "PlainGeneratorBlock", conv_transpose_layer=conv_transpose_layer, norm_layer=norm_layer, act_layer=act_layer
        )
        check_sizes("PlainGeneratorBlock", in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.conv = conv_transpose_layer(in_channels, out_channels, 4, stride=2, padding=1)
        self.norm = norm_layer(out_channels)
        self.act = act_layer()

    def forward(self, x: Tensor) -> Tensor:
        """Double the resolution."""
        check_feature_map("PlainGeneratorBlock", x, self.in_channels)
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class PlainDiscriminatorBlock(nn.Module):
    r"""One halving of DC-GAN's discriminator: a convolution of stride 2.

    .. math:: y = A \circ N \circ \operatorname{conv}_{4 \times 4,\, 2}\,(x)

    With batch normalization a sample's output depends on the rest of the batch: give real and generated images to the
    discriminator in separate calls, or they see each other, and do not ask for the slope at one sample. The first
    block of a discriminator has ``norm_layer=nn.Identity``, and so have all those of a Wasserstein critic.

    Differences from the paper: see :class:`PlainGeneratorBlock`.

    Args:
        in_channels: Channels of the input, at least 1.
        out_channels: Channels of the output, at least 1.
        conv_layer: Factory of the convolution, called like ``nn.Conv2d``.
        norm_layer: Factory of the normalization N, called as ``norm_layer(out_channels)``; by default
            :class:`CrossReplicaBatchNorm2d` with the statistics of the batch at hand, in eval mode too.
        act_layer: Factory of the activation A, called without arguments; leaky ReLU of 0.2 by default.

    Shape:
        - x: ``(batch, in_channels, height, width)`` with even height and width
        - returns: ``(batch, out_channels, height / 2, width / 2)``

    Raises:
        ValueError: If a width is not positive, or ``x`` has another shape.

    References:
        Radford et al. 2015, "Unsupervised Representation Learning with Deep Convolutional GANs", section 3.

    Example:
        >>> PlainDiscriminatorBlock(32, 64)(torch.randn(2, 32, 8, 8)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        norm_layer: Callable[[int], nn.Module] = _batch_statistics,
        act_layer: Callable[[], nn.Module] = leaky_relu,
    ) -> None:
        super().__init__()
        check_factories("PlainDiscriminatorBlock", conv_layer=conv_layer, norm_layer=norm_layer, act_layer=act_layer)
        check_sizes("PlainDiscriminatorBlock", in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.conv = conv_layer(in_channels, out_channels, 4, stride=2, padding=1)
        self.norm = norm_layer(out_channels)
        self.act = act_layer()

    def forward(self, x: Tensor) -> Tensor:
        """Halve the resolution."""
        if x.dim() != 4 or x.shape[1] != self.in_channels or x.shape[2] % 2 or x.shape[3] % 2:
            rule = f"(batch, {self.in_channels}, height, width) with even height and width"
            raise bad_shape("PlainDiscriminatorBlock", "x", rule, x)
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y
