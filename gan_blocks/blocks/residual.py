"""The residual blocks of SN-GAN, SA-GAN and BigGAN, one resolution step each.

Tested in ``tests/blocks/test_residual.py``.
"""

from collections.abc import Callable

from torch import Tensor, nn

from gan_blocks._checks import bad_value, check_factories, check_feature_map, check_flags, check_sizes
from gan_blocks.blocks._residuals import check_groups, check_out_of_place, grouped, norms_for, zero_weight_
from gan_blocks.layers.fused_resampling import conv2d_downsample, upsample_conv2d
from gan_blocks.layers.resampling import downsample_average, upsample_nearest

__all__ = ["ResidualDiscriminatorBlock", "ResidualGeneratorBlock"]


class ResidualGeneratorBlock(nn.Module):
    r"""Residual block of BigGAN's generator, which may double the resolution and change the width.

    .. math:: y = U(\operatorname{conv}_s(x)) + C_2 \circ \operatorname{conv}_1 \circ U \circ R \circ
        \operatorname{norm}_1(x, c), \qquad C_2(h) = \operatorname{conv}_2(R(\operatorname{norm}_2(h, c))),
        \quad R = \operatorname{ReLU}

    The upsampling U (the identity without ``upsample``) stands before the first convolution, after its norm and
    activation. The shortcut has a 1x1 convolution where height and width or the width in channels change, and is the
    identity otherwise. In the paper the shortcut is upsampled first; a 1x1 convolution commutes with U, so that here it
    runs on a quarter of the pixels.

    Args:
        in_channels: Channels of the input, at least 1.
        out_channels: Channels of the output and between the convolutions, at least 1.
        norm_layer: Factory of the two norms, called with the number of channels, such as
            :class:`gan_blocks.ConditionalBatchNorm2d` or ``nn.BatchNorm2d``. One with a true attribute
            ``takes_condition`` is called as ``norm(x, condition)``, any other as ``norm(x)``. None by default.
        upsample: Whether to double height and width.
        resample: How to double them. It must treat all channels alike and keep constants, as interpolation does, or it
            would not commute with the shortcut's convolution.
        kernel_size: Height and width of both convolutions' filters, odd; the paper uses 3.
        dilation: Distance between the pixels that a filter sees, at least 1; the paper uses 1.
        groups: Groups of both convolutions' channels, which it must divide; the paper has 1.
        zero_init_residual: Whether the last convolution starts at zero, so that the block starts as its shortcut.
        conv_layer: Factory of the convolutions, called like ``nn.Conv2d``; the paper's are spectrally normalized.
        act_layer: Factory of the activations, called without arguments. Without a norm before it, the first one must
            not work in place: it would change what the shortcut reads.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - condition: whatever the norms take, such as ``(batch, condition_dim)``; left out where they take none
        - returns: ``(batch, out_channels, height, width)``, height and width doubled with ``upsample``

    Raises:
        ValueError: If an argument is outside its range, or ``x`` has another shape.
        TypeError: If a norm takes a condition and there is none, or ``conv_layer`` makes layers whose weight cannot be
            zero, such as spectrally normalized ones, with ``zero_init_residual``.

    References:
        Brock et al. 2018, Appendix B, figure 15 (b) and Tables 4 to 6, Appendix H for other filters and resampling;
        Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks".

    Example:
        >>> from functools import partial
        >>> from gan_blocks import ConditionalBatchNorm2d
        >>> norm_layer = partial(ConditionalBatchNorm2d, condition_dim=148)
        >>> block = ResidualGeneratorBlock(64, 32, norm_layer=norm_layer, upsample=True)
        >>> block(torch.randn(2, 64, 8, 8), torch.randn(2, 148)).shape
        torch.Size([2, 32, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm_layer: Callable[[int], nn.Module] = nn.Identity,
        upsample: bool = False,
        resample: Callable[[Tensor], Tensor] = upsample_nearest,
        kernel_size: int = 3,
        dilation: int = 1,
        groups: int = 1,
        zero_init_residual: bool = False,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        act_layer: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        check_factories("ResidualGeneratorBlock", norm_layer=norm_layer, conv_layer=conv_layer, act_layer=act_layer)
        check_flags("ResidualGeneratorBlock", upsample=upsample, zero_init_residual=zero_init_residual)
        padding = _padding("ResidualGeneratorBlock", in_channels, out_channels, kernel_size, dilation)
        check_groups("ResidualGeneratorBlock", groups, {"in_channels": in_channels, "out_channels": out_channels})
        # A factory need not know what is not asked for.
        options = {"padding": padding, **({} if dilation == 1 else {"dilation": dilation}), **grouped(groups)}
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.upsample = upsample
        self.resample = resample
        self.norm1, self.act1 = norm_layer(in_channels), act_layer()
        check_out_of_place("ResidualGeneratorBlock", self.norm1, self.act1)
        self.conv1 = conv_layer(in_channels, out_channels, kernel_size, **options)
        self.norm2, self.act2 = norm_layer(out_channels), act_layer()
        self.conv2 = conv_layer(out_channels, out_channels, kernel_size, **options)
        if zero_init_residual:
            zero_weight_("ResidualGeneratorBlock", self.conv2)
        changes = upsample or in_channels != out_channels
        self.shortcut = conv_layer(in_channels, out_channels, 1) if changes else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Add the residual to the shortcut."""
        owner = "ResidualGeneratorBlock"
        check_feature_map(owner, x, self.in_channels)
        shortcut: Tensor = self.shortcut(x)
        norm1, norm2 = norms_for(owner, [self.norm1, self.norm2], x, condition)
        h: Tensor = self.act1(norm1(x))
        if self.upsample:
            shortcut, h = self.resample(shortcut), upsample_conv2d(self.conv1, h, upsample=self.resample)
        else:
            h = self.conv1(h)
        h = self.conv2(self.act2(norm2(h)))
        return h + shortcut

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{self.in_channels}, {self.out_channels}, upsample={self.upsample}"


class ResidualDiscriminatorBlock(nn.Module):
    r"""Residual block of BigGAN's discriminator, which may halve the resolution and change the width.

    .. math:: y = \operatorname{conv}_s(P(x)) + P \circ \operatorname{conv}_2 \circ R \circ \operatorname{conv}_1 \circ
        R\,(x), \qquad R = \operatorname{ReLU}

    The pooling P (average of 2x2 pixels; the identity without ``downsample``) stands after the last convolution. The
    shortcut has a 1x1 convolution where height and width or the width in channels change, and is the identity
    otherwise. Both orders of P and that convolution are in use, and equal; this one convolves a quarter of the pixels.

    The block at the image has no first activation (``preactivation=False``): it would drop all that is darker than
    gray.

    Args:
        in_channels: Channels of the input, at least 1.
        out_channels: Channels of the output, at least 1.
        hidden_channels: Channels between the convolutions, at least 1; None: those of the output, as in the paper.
        downsample: Whether to halve height and width, which must then be even.
        preactivation: Whether the residual begins with an activation.
        norm_layer: Factory of a norm before each activation, called with the number of channels; each is called with
            the feature map alone. The paper has none.
        resample: How to halve height and width. It must treat all channels alike and keep constants, as averages do.
        kernel_size: Height and width of both convolutions' filters, odd; the paper uses 3.
        dilation: Distance between the pixels that a filter sees, at least 1; the paper uses 1.
        groups: Groups of both convolutions' channels, which it must divide; the paper has 1.
        zero_init_residual: Whether the last convolution starts at zero, so that the block starts as its shortcut.
        conv_layer: Factory of the convolutions, called like ``nn.Conv2d``; the paper's are spectrally normalized.
        act_layer: Factory of the activations, called without arguments. Without a norm before it, the first one must
            not work in place: it would change what the shortcut reads.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - returns: ``(batch, out_channels, height, width)``, height and width halved with ``downsample``

    Raises:
        ValueError: If an argument is outside its range, or ``x`` has another shape.
        TypeError: If ``conv_layer`` makes layers whose weight cannot be zero, such as spectrally normalized ones, with
            ``zero_init_residual``.

    References:
        Brock et al. 2018, Appendix B, figure 15 (c) and Tables 4 to 6, Appendix H for norms and other filters;
        Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks".

    Example:
        >>> block = ResidualDiscriminatorBlock(3, 64, downsample=True, preactivation=False)
        >>> block(torch.randn(2, 3, 16, 16)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden_channels: int | None = None,
        downsample: bool = False,
        preactivation: bool = True,
        norm_layer: Callable[[int], nn.Module] = nn.Identity,
        resample: Callable[[Tensor], Tensor] = downsample_average,
        kernel_size: int = 3,
        dilation: int = 1,
        groups: int = 1,
        zero_init_residual: bool = False,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        act_layer: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        check_factories("ResidualDiscriminatorBlock", norm_layer=norm_layer, conv_layer=conv_layer, act_layer=act_layer)
        check_flags(
            "ResidualDiscriminatorBlock",
            downsample=downsample,
            preactivation=preactivation,
            zero_init_residual=zero_init_residual,
        )
        hidden = out_channels if hidden_channels is None else hidden_channels
        padding = _padding("ResidualDiscriminatorBlock", in_channels, out_channels, kernel_size, dilation)
        check_sizes("ResidualDiscriminatorBlock", hidden_channels=hidden)
        channels = {"in_channels": in_channels, "hidden_channels": hidden, "out_channels": out_channels}
        check_groups("ResidualDiscriminatorBlock", groups, channels)
        # A factory need not know what is not asked for.
        options = {"padding": padding, **({} if dilation == 1 else {"dilation": dilation}), **grouped(groups)}
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.downsample = downsample
        self.preactivation = preactivation
        self.resample = resample
        self.norm1, self.act1 = (
            (norm_layer(in_channels), act_layer()) if preactivation else (nn.Identity(), nn.Identity())
        )
        check_out_of_place("ResidualDiscriminatorBlock", self.norm1, self.act1)
        self.conv1 = conv_layer(in_channels, hidden, kernel_size, **options)
        self.norm2, self.act2 = norm_layer(hidden), act_layer()
        self.conv2 = conv_layer(hidden, out_channels, kernel_size, **options)
        if zero_init_residual:
            zero_weight_("ResidualDiscriminatorBlock", self.conv2)
        changes = downsample or in_channels != out_channels
        self.shortcut = conv_layer(in_channels, out_channels, 1) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        check_feature_map("ResidualDiscriminatorBlock", x, self.in_channels)
        h: Tensor = self.conv1(self.act1(self.norm1(x)))
        h = self.act2(self.norm2(h))
        shortcut = x
        if self.downsample:
            shortcut, h = self.resample(shortcut), conv2d_downsample(self.conv2, h, downsample=self.resample)
        else:
            h = self.conv2(h)
        y: Tensor = h + self.shortcut(shortcut)
        return y

    def extra_repr(self) -> str:
        """Name the sizes."""
        sizes = f"{self.in_channels}, {self.out_channels}, downsample={self.downsample}"
        return f"{sizes}, preactivation={self.preactivation}"


def _padding(owner: str, in_channels: int, out_channels: int, kernel_size: int, dilation: int) -> int:
    """Check the sizes, and return the padding with which such filters keep height and width."""
    check_sizes(owner, in_channels=in_channels, out_channels=out_channels)
    check_sizes(owner, kernel_size=kernel_size, dilation=dilation)
    if kernel_size % 2 == 0:
        raise bad_value(owner, "kernel_size", "odd", kernel_size, "An even filter has no pixel at its center.")
    return dilation * (kernel_size - 1) // 2
