"""The residual bottleneck blocks of BigGAN-deep, one resolution step each.

Tested in ``tests/blocks/test_bottleneck.py``.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gan_blocks._checks import bad_value, check_factories, check_feature_map, check_flags, check_sizes
from gan_blocks.blocks._residuals import check_groups, check_out_of_place, grouped, norms_for, zero_weight_
from gan_blocks.layers.fused_resampling import upsample_conv2d
from gan_blocks.layers.resampling import downsample_average, upsample_nearest

__all__ = ["BottleneckDiscriminatorBlock", "BottleneckGeneratorBlock"]


class BottleneckGeneratorBlock(nn.Module):
    r"""Residual bottleneck of BigGAN-deep's generator, which may double the resolution and drop channels.

    .. math:: y = U(x_{1..\text{out}}) + C_4 \circ C_3 \circ C_2 \circ U \circ C_1\,(x),
        \qquad C_i(h) = \operatorname{conv}_i(\operatorname{ReLU}(\operatorname{norm}_i(h, c)))

    :math:`C_1` and :math:`C_4` have 1x1 convolutions, :math:`C_2` and :math:`C_3` 3x3 ones of
    ``in_channels / bottleneck_ratio`` channels. The upsampling U (nearest; the identity without ``upsample``) stands
    before the first 3x3 convolution, after its norm and activation. The shortcut keeps the first ``out_channels``
    channels and has no parameters, so that the identity is preserved throughout the network.

    Args:
        in_channels: Channels of the input, a multiple of ``bottleneck_ratio``.
        out_channels: Channels of the output, from 1 to ``in_channels``.
        norm_layer: Factory of the four norms, called with the number of channels, such as
            :class:`gan_blocks.ConditionalBatchNorm2d` or ``nn.BatchNorm2d``. One with a true attribute
            ``takes_condition`` is called as ``norm(x, condition)``, any other as ``norm(x)``. None by default.
        upsample: Whether to double height and width.
        resample: How to double them.
        bottleneck_ratio: ``in_channels`` divided by the width of the 3x3 convolutions, at least 1; the paper uses 4.
        groups: Groups of the 3x3 convolutions' channels, whose number it must divide; the paper has 1.
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
        Brock et al. 2018, Appendix B, figure 16 (b) and Tables 7 to 9; He et al. 2016 for bottlenecks.

    Example:
        >>> from functools import partial
        >>> from gan_blocks import ConditionalBatchNorm2d
        >>> norm_layer = partial(ConditionalBatchNorm2d, condition_dim=256)
        >>> block = BottleneckGeneratorBlock(64, 32, norm_layer=norm_layer, upsample=True)
        >>> block(torch.randn(2, 64, 8, 8), torch.randn(2, 256)).shape
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
        bottleneck_ratio: int = 4,
        groups: int = 1,
        zero_init_residual: bool = False,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        act_layer: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        owner = "BottleneckGeneratorBlock"
        check_factories(owner, norm_layer=norm_layer, conv_layer=conv_layer, act_layer=act_layer)
        check_flags(owner, upsample=upsample, zero_init_residual=zero_init_residual)
        check_sizes(owner, in_channels=in_channels, out_channels=out_channels, bottleneck_ratio=bottleneck_ratio)
        if in_channels % bottleneck_ratio:
            raise bad_value(owner, "in_channels", f"a multiple of bottleneck_ratio={bottleneck_ratio}", in_channels)
        if out_channels > in_channels:
            rule = f"at most in_channels={in_channels}"
            raise bad_value(owner, "out_channels", rule, out_channels, "The shortcut can only drop channels.")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.upsample = upsample
        self.resample = resample
        hidden = in_channels // bottleneck_ratio
        check_groups(owner, groups, {"in_channels / bottleneck_ratio": hidden})
        self.norm1, self.act1 = norm_layer(in_channels), act_layer()
        check_out_of_place(owner, self.norm1, self.act1)
        self.conv1 = conv_layer(in_channels, hidden, 1)
        self.norm2, self.act2 = norm_layer(hidden), act_layer()
        self.conv2 = conv_layer(hidden, hidden, 3, padding=1, **grouped(groups))
        self.norm3, self.act3 = norm_layer(hidden), act_layer()
        self.conv3 = conv_layer(hidden, hidden, 3, padding=1, **grouped(groups))
        self.norm4, self.act4 = norm_layer(hidden), act_layer()
        self.conv4 = conv_layer(hidden, out_channels, 1)
        if zero_init_residual:
            zero_weight_("BottleneckGeneratorBlock", self.conv4)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Add the residual to the shortcut."""
        owner = "BottleneckGeneratorBlock"
        check_feature_map(owner, x, self.in_channels)
        shortcut = x[:, : self.out_channels]
        norm1, norm2, norm3, norm4 = norms_for(owner, [self.norm1, self.norm2, self.norm3, self.norm4], x, condition)
        h: Tensor = self.conv1(self.act1(norm1(x)))
        h = self.act2(norm2(h))
        if self.upsample:
            shortcut, h = self.resample(shortcut), upsample_conv2d(self.conv2, h, upsample=self.resample)
        else:
            h = self.conv2(h)
        h = self.conv3(self.act3(norm3(h)))
        h = self.conv4(self.act4(norm4(h)))
        return h + shortcut

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{self.in_channels}, {self.out_channels}, upsample={self.upsample}"


class BottleneckDiscriminatorBlock(nn.Module):
    r"""Residual bottleneck of BigGAN-deep's discriminator, which may halve the resolution and add channels.

    .. math:: y = [P(x), \operatorname{conv}_s(P(x))] + \operatorname{conv}_4 \circ P \circ R \circ C_3 \circ C_2
        \circ C_1\,(x), \qquad C_i(h) = \operatorname{conv}_i(R(h)), \quad R = \operatorname{ReLU}

    :math:`\operatorname{conv}_1` and :math:`\operatorname{conv}_4` are 1x1, the two between 3x3 with
    ``out_channels / bottleneck_ratio`` channels. The pooling P (average of 2x2 pixels; the identity without
    ``downsample``) stands between the last activation and the last convolution. The shortcut passes its input on
    unperturbed; where channels are missing, a 1x1 convolution of it makes them.

    Args:
        in_channels: Channels of the input, at least 1.
        out_channels: Channels of the output, at least ``in_channels`` and a multiple of ``bottleneck_ratio``.
        downsample: Whether to halve height and width, which must then be even.
        resample: How to halve them.
        bottleneck_ratio: ``out_channels`` divided by the width of the 3x3 convolutions, at least 1; the paper uses 4.
        groups: Groups of the 3x3 convolutions' channels, whose number it must divide; the paper has 1.
        zero_init_residual: Whether the last convolution starts at zero, so that the block starts as its shortcut.
        conv_layer: Factory of the convolutions, called like ``nn.Conv2d``; the paper's are spectrally normalized.
        act_layer: Factory of the activations, called without arguments. It must not work in place: the first one
            would change what the shortcut reads.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - returns: ``(batch, out_channels, height, width)``, height and width halved with ``downsample``

    Raises:
        ValueError: If an argument is outside its range, or ``x`` has another shape.
        TypeError: If ``conv_layer`` makes layers whose weight cannot be zero, such as spectrally normalized ones, with
            ``zero_init_residual``.

    References:
        Brock et al. 2018, Appendix B, figure 16 (c) and Tables 7 to 9; He et al. 2016 for bottlenecks.

    Example:
        >>> block = BottleneckDiscriminatorBlock(32, 64, downsample=True)
        >>> block(torch.randn(2, 32, 16, 16)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        downsample: bool = False,
        resample: Callable[[Tensor], Tensor] = downsample_average,
        bottleneck_ratio: int = 4,
        groups: int = 1,
        zero_init_residual: bool = False,
        conv_layer: Callable[..., nn.Module] = nn.Conv2d,
        act_layer: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        owner = "BottleneckDiscriminatorBlock"
        check_factories(owner, conv_layer=conv_layer, act_layer=act_layer)
        check_flags(owner, downsample=downsample, zero_init_residual=zero_init_residual)
        check_sizes(owner, in_channels=in_channels, out_channels=out_channels, bottleneck_ratio=bottleneck_ratio)
        if out_channels % bottleneck_ratio:
            raise bad_value(owner, "out_channels", f"a multiple of bottleneck_ratio={bottleneck_ratio}", out_channels)
        if out_channels < in_channels:
            rule = f"at least in_channels={in_channels}"
            raise bad_value(owner, "out_channels", rule, out_channels, "The shortcut can only add channels.")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.downsample = downsample
        self.resample = resample
        hidden = out_channels // bottleneck_ratio
        check_groups(owner, groups, {"out_channels / bottleneck_ratio": hidden})
        self.act1 = act_layer()
        check_out_of_place(owner, nn.Identity(), self.act1)
        self.conv1 = conv_layer(in_channels, hidden, 1)
        self.act2 = act_layer()
        self.conv2 = conv_layer(hidden, hidden, 3, padding=1, **grouped(groups))
        self.act3 = act_layer()
        self.conv3 = conv_layer(hidden, hidden, 3, padding=1, **grouped(groups))
        self.act4 = act_layer()
        self.conv4 = conv_layer(hidden, out_channels, 1)
        if zero_init_residual:
            zero_weight_("BottleneckDiscriminatorBlock", self.conv4)
        missing = out_channels - in_channels
        self.shortcut = conv_layer(in_channels, missing, 1) if missing else None

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        check_feature_map("BottleneckDiscriminatorBlock", x, self.in_channels)
        shortcut = x
        h: Tensor = self.conv1(self.act1(x))
        h = self.conv3(self.act3(self.conv2(self.act2(h))))
        h = self.act4(h)
        if self.downsample:
            shortcut, h = self.resample(shortcut), self.resample(h)
        h = self.conv4(h)
        if self.shortcut is not None:
            shortcut = torch.cat([shortcut, self.shortcut(shortcut)], dim=1)
        return h + shortcut

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{self.in_channels}, {self.out_channels}, downsample={self.downsample}"
