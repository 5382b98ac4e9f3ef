"""ProGAN's blocks: the steps by which two networks grow from 4x4 pixels upwards.

A growing network holds all its blocks from the start and runs those of the current resolution; :func:`fade_in`
blends the newest one in.

Tested in ``tests/blocks/test_progressive.py``.
"""

from collections.abc import Callable
from functools import partial

from einops import rearrange
from torch import Tensor, nn

from gan_blocks._checks import bad_shape, check_factories, check_feature_map, check_sizes, check_vectors
from gan_blocks.layers.activation import leaky_relu
from gan_blocks.layers.equalized import EqualizedConv2d, EqualizedConvTranspose2d, EqualizedLinear
from gan_blocks.layers.fused_resampling import upsample_conv2d
from gan_blocks.layers.minibatch import MinibatchStdDev
from gan_blocks.layers.normalization import PixelNorm
from gan_blocks.layers.resampling import downsample_average

__all__ = [
    "FromRGB",
    "ProgressiveDiscriminatorBlock",
    "ProgressiveDiscriminatorHead",
    "ProgressiveGeneratorBlock",
    "ProgressiveGeneratorStem",
    "ToRGB",
]

# Linear layers at the end of a network have no activation whose loss of variance a gain of sqrt(2) would make up for.
_linear_conv = partial(EqualizedConv2d, gain=1.0)
_linear_score = partial(EqualizedLinear, gain=1.0)


def _pixel_norm(_num_features: int) -> nn.Module:
    return PixelNorm()


class ProgressiveGeneratorStem(nn.Module):
    r"""First block of ProGAN's generator: from the latent vector to 4x4 pixels.

    .. math:: y = N \circ A \circ \operatorname{conv}_{3 \times 3} \circ N \circ A \circ
        \operatorname{conv}^\top_{4 \times 4}\,(z)

    A is the activation and N the normalization, in this order after every convolution. The latent vector is taken as
    it comes: the paper's lie on the hypersphere, ``pixel_norm(z)``.

    Args:
        latent_dim: Dimension of z, at least 1.
        out_channels: Channels of the output, at least 1.
        conv_layer: Factory of the 3x3 convolution, called like ``nn.Conv2d``.
        conv_transpose_layer: Factory of the 4x4 one, called like ``nn.ConvTranspose2d``.
        act_layer: Factory of the activations, called without arguments; leaky ReLU of 0.2 by default.
        norm_layer: Factory of the normalizations, called as ``norm_layer(num_features)``; :class:`PixelNorm` by
            default. One that acts before the activation, such as batch norm, belongs into ``conv_layer``.

    Shape:
        - z: ``(batch, latent_dim)``
        - returns: ``(batch, out_channels, 4, 4)``

    Raises:
        ValueError: If a size is not positive, or ``z`` has another shape.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", Table 2 and Appendix A.1; that the first 4x4 convolution is
        normalized too follows section 4.2 and the published code.

    Example:
        >>> ProgressiveGeneratorStem(512, 64)(torch.randn(2, 512)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(
        self,
        latent_dim: int,
        out_channels: int,
        *,
        conv_layer: Callable[..., nn.Module] = EqualizedConv2d,
        conv_transpose_layer: Callable[..., nn.Module] = EqualizedConvTranspose2d,
        act_layer: Callable[[], nn.Module] = leaky_relu,
        norm_layer: Callable[[int], nn.Module] = _pixel_norm,
    ) -> None:
        super().__init__()
        check_factories(
            "ProgressiveGeneratorStem",
            conv_layer=conv_layer,
            conv_transpose_layer=conv_transpose_layer,
            act_layer=act_layer,
            norm_layer=norm_layer,
        )
        check_sizes("ProgressiveGeneratorStem", latent_dim=latent_dim, out_channels=out_channels)
        self.latent_dim = latent_dim
        self.conv1 = conv_transpose_layer(latent_dim, out_channels, 4)
        self.act1, self.norm1 = act_layer(), norm_layer(out_channels)
        self.conv2 = conv_layer(out_channels, out_channels, 3, padding=1)
        self.act2, self.norm2 = act_layer(), norm_layer(out_channels)

    def forward(self, z: Tensor) -> Tensor:
        """Turn latent vectors into the smallest feature maps."""
        check_vectors("ProgressiveGeneratorStem", "z", z, self.latent_dim)
        h: Tensor = self.norm1(self.act1(self.conv1(rearrange(z, "batch dim -> batch dim 1 1"))))
        y: Tensor = self.norm2(self.act2(self.conv2(h)))
        return y


class ProgressiveGeneratorBlock(nn.Module):
    r"""One doubling of ProGAN's generator: nearest upsampling and two 3x3 convolutions.

    .. math:: y = N \circ A \circ \operatorname{conv}_{3 \times 3} \circ N \circ A \circ
        \operatorname{conv}_{3 \times 3} \circ \text{up}\,(x)

    Args:
        in_channels: Channels of the input, at least 1.
        out_channels: Channels of both convolutions' outputs, at least 1.
        conv_layer: Factory of the convolutions, called like ``nn.Conv2d``.
        act_layer: Factory of the activations A, called without arguments; leaky ReLU of 0.2 by default.
        norm_layer: Factory of the normalizations N, called as ``norm_layer(num_features)``; :class:`PixelNorm` by
            default. One that acts before the activation, such as batch norm, belongs into ``conv_layer``.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - returns: ``(batch, out_channels, 2 * height, 2 * width)``

    Raises:
        ValueError: If a width is not positive, or ``x`` has another shape.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", Table 2 and Appendix A.1.

    Example:
        >>> ProgressiveGeneratorBlock(64, 32)(torch.randn(2, 64, 4, 4)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        conv_layer: Callable[..., nn.Module] = EqualizedConv2d,
        act_layer: Callable[[], nn.Module] = leaky_relu,
        norm_layer: Callable[[int], nn.Module] = _pixel_norm,
    ) -> None:
        super().__init__()
        check_factories("ProgressiveGeneratorBlock", conv_layer=conv_layer, act_layer=act_layer, norm_layer=norm_layer)
        check_sizes("ProgressiveGeneratorBlock", in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.conv1 = conv_layer(in_channels, out_channels, 3, padding=1)
        self.act1, self.norm1 = act_layer(), norm_layer(out_channels)
        self.conv2 = conv_layer(out_channels, out_channels, 3, padding=1)
        self.act2, self.norm2 = act_layer(), norm_layer(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Double the resolution."""
        check_feature_map("ProgressiveGeneratorBlock", x, self.in_channels)
        h: Tensor = self.norm1(self.act1(upsample_conv2d(self.conv1, x)))
        y: Tensor = self.norm2(self.act2(self.conv2(h)))
        return y


class ToRGB(nn.Module):
    r"""Project a generator's features to an image with a 1x1 convolution, without activation.

    .. math:: y = \operatorname{conv}_{1 \times 1}(x)

    Args:
        in_channels: Channels of the features, at least 1.
        image_channels: Channels of the image: 3 for RGB, 1 for gray images.
        conv_layer: Factory of the convolution, called like ``nn.Conv2d``; :class:`EqualizedConv2d` with a gain of 1 by
            default.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - returns: ``(batch, image_channels, height, width)``, of any value: nothing limits it to [-1, 1]

    Raises:
        ValueError: If a size is not positive, or ``x`` has another shape.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", Figure 2 and Table 2; the gain is that of the published code.

    Example:
        >>> ToRGB(16)(torch.randn(2, 16, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self, in_channels: int, image_channels: int = 3, *, conv_layer: Callable[..., nn.Module] = _linear_conv
    ) -> None:
        super().__init__()
        check_factories("ToRGB", conv_layer=conv_layer)
        check_sizes("ToRGB", in_channels=in_channels, image_channels=image_channels)
        self.in_channels = in_channels
        self.conv = conv_layer(in_channels, image_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the image."""
        check_feature_map("ToRGB", x, self.in_channels)
        image: Tensor = self.conv(x)
        return image


class FromRGB(nn.Module):
    r"""Turn an image into a discriminator's features with a 1x1 convolution and an activation.

    .. math:: y = A \circ \operatorname{conv}_{1 \times 1}(x)

    Args:
        image_channels: Channels of the image: 3 for RGB, 1 for gray images.
        out_channels: Channels of the features, at least 1.
        conv_layer: Factory of the convolution, called like ``nn.Conv2d``.
        act_layer: Factory of the activation A, called without arguments; leaky ReLU of 0.2 by default.

    Shape:
        - x: ``(batch, image_channels, height, width)``
        - returns: ``(batch, out_channels, height, width)``

    Raises:
        ValueError: If a size is not positive, or ``x`` has another shape.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", Figure 2 and Table 2.

    Example:
        >>> FromRGB(3, 16)(torch.randn(2, 3, 8, 8)).shape
        torch.Size([2, 16, 8, 8])
    """

    def __init__(
        self,
        image_channels: int,
        out_channels: int,
        *,
        conv_layer: Callable[..., nn.Module] = EqualizedConv2d,
        act_layer: Callable[[], nn.Module] = leaky_relu,
    ) -> None:
        super().__init__()
        check_factories("FromRGB", conv_layer=conv_layer, act_layer=act_layer)
        check_sizes("FromRGB", image_channels=image_channels, out_channels=out_channels)
        self.image_channels = image_channels
        self.conv = conv_layer(image_channels, out_channels, 1)
        self.act = act_layer()

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        check_feature_map("FromRGB", x, self.image_channels)
        h: Tensor = self.act(self.conv(x))
        return h


class ProgressiveDiscriminatorBlock(nn.Module):
    r"""One halving of ProGAN's discriminator: two 3x3 convolutions and average pooling.

    .. math:: y = \text{down} \circ A \circ \operatorname{conv}_{3 \times 3} \circ A \circ
        \operatorname{conv}_{3 \times 3}\,(x)

    Args:
        in_channels: Channels of the input and of the first convolution's output, at least 1.
        out_channels: Channels of the output, at least 1.
        conv_layer: Factory of the convolutions, called like ``nn.Conv2d``; noise before them and a normalization after
            them belong into it.
        act_layer: Factory of the activations A, called without arguments; leaky ReLU of 0.2 by default.

    Shape:
        - x: ``(batch, in_channels, height, width)`` with even height and width
        - returns: ``(batch, out_channels, height / 2, width / 2)``

    Raises:
        ValueError: If a width is not positive, or ``x`` has another shape.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", Table 2 and Appendix A.1.

    Example:
        >>> ProgressiveDiscriminatorBlock(32, 64)(torch.randn(2, 32, 8, 8)).shape
        torch.Size([2, 64, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        conv_layer: Callable[..., nn.Module] = EqualizedConv2d,
        act_layer: Callable[[], nn.Module] = leaky_relu,
    ) -> None:
        super().__init__()
        check_factories("ProgressiveDiscriminatorBlock", conv_layer=conv_layer, act_layer=act_layer)
        check_sizes("ProgressiveDiscriminatorBlock", in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.conv1 = conv_layer(in_channels, in_channels, 3, padding=1)
        self.act1 = act_layer()
        self.conv2 = conv_layer(in_channels, out_channels, 3, padding=1)
        self.act2 = act_layer()

    def forward(self, x: Tensor) -> Tensor:
        """Halve the resolution."""
        check_feature_map("ProgressiveDiscriminatorBlock", x, self.in_channels)
        h: Tensor = self.act1(self.conv1(x))
        h = self.act2(self.conv2(h))
        return downsample_average(h)


class ProgressiveDiscriminatorHead(nn.Module):
    r"""Last block of ProGAN's discriminator: from 4x4 pixels to a logit.

    .. math:: y = w^\top \! A \circ \operatorname{conv}_{4 \times 4} \circ A \circ \operatorname{conv}_{3 \times 3}\,
        ([x, \text{stddev}(x)]) + b

    Args:
        in_channels: Channels of the input, at least 1.
        hidden_channels: Channels of both convolutions' outputs, at least 1.
        stddev_layer: Factory of the layer that appends one map of statistics across the batch, called without
            arguments; None: no such map.
        conv_layer: Factory of the convolutions, called like ``nn.Conv2d``.
        linear_layer: Factory of the last layer, called as ``linear_layer(hidden_channels, 1)``;
            :class:`EqualizedLinear` with a gain of 1 by default.
        act_layer: Factory of the activations A, called without arguments; leaky ReLU of 0.2 by default.

    Shape:
        - x: ``(batch, in_channels, 4, 4)``
        - returns: ``(batch,)``, raw logits, larger means more real

    Raises:
        ValueError: If a width is not positive, or ``x`` has another shape.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 3, Table 2 and Appendix A.1.

    Example:
        >>> ProgressiveDiscriminatorHead(64, 64)(torch.randn(8, 64, 4, 4)).shape
        torch.Size([8])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        *,
        stddev_layer: Callable[[], nn.Module] | None = MinibatchStdDev,
        conv_layer: Callable[..., nn.Module] = EqualizedConv2d,
        linear_layer: Callable[[int, int], nn.Module] = _linear_score,
        act_layer: Callable[[], nn.Module] = leaky_relu,
    ) -> None:
        super().__init__()
        owner = "ProgressiveDiscriminatorHead"
        check_factories(
            owner,
            stddev_layer=stddev_layer or nn.Identity,
            conv_layer=conv_layer,
            linear_layer=linear_layer,
            act_layer=act_layer,
        )
        check_sizes(owner, in_channels=in_channels, hidden_channels=hidden_channels)
        self.in_channels = in_channels
        self.stddev = nn.Identity() if stddev_layer is None else stddev_layer()
        self.conv1 = conv_layer(in_channels + (stddev_layer is not None), hidden_channels, 3, padding=1)
        self.act1 = act_layer()
        self.conv2 = conv_layer(hidden_channels, hidden_channels, 4)
        self.act2 = act_layer()
        self.linear = linear_layer(hidden_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Judge every sample."""
        if x.dim() != 4 or x.shape[1:] != (self.in_channels, 4, 4):
            raise bad_shape("ProgressiveDiscriminatorHead", "x", f"(batch, {self.in_channels}, 4, 4)", x)
        h: Tensor = self.act1(self.conv1(self.stddev(x)))
        h = self.act2(self.conv2(h))
        score: Tensor = self.linear(rearrange(h, "batch c 1 1 -> batch c"))
        return rearrange(score, "batch 1 -> batch")
