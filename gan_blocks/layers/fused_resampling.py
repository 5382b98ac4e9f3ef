"""A 3x3 convolution beside a change of resolution as one 4x4 convolution of stride 2: equal, and 2.25 times less work.

Tested in ``tests/layers/test_fused_resampling.py``; ``benchmarks/parts/fused_resampling.py`` measures from which size
on it is faster.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from gan_blocks._precision import exact_products, full_precision, wide_dtype
from gan_blocks._transforms import is_transformed, is_watched
from gan_blocks.layers.resampling import downsample_average, upsample_nearest

__all__ = ["conv2d_downsample", "upsample_by_kernel", "upsample_conv2d", "upsampling_kernel"]

Resample: TypeAlias = Callable[[Tensor], Tensor]

_SMALLEST = 8  # height and width of the smaller map; below, kernels of stride 2 are slower
_PLAIN = (Tensor, nn.Parameter)  # a sharded weight cannot be padded

# How much of each of 3 places along an axis goes to each of 4. The Kronecker products say it of 9 and 16 in a plane.
_ALONG_AN_AXIS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], np.float32)
_SUMS: NDArray[np.float32] = np.kron(_ALONG_AN_AXIS, _ALONG_AN_AXIS)
_MEANS: NDArray[np.float32] = _SUMS * np.float32(0.25)
# A transposed convolution reads its kernels backward.
_SUMS_OF_FLIPPED = np.kron(_ALONG_AN_AXIS[:, ::-1], _ALONG_AN_AXIS[:, ::-1])


def upsample_conv2d(
    conv: nn.Module, x: Tensor, *, upsample: Resample = upsample_nearest, fused: bool | None = None
) -> Tensor:
    r"""Apply a convolution to an upsampled feature map.

    .. math:: y = \operatorname{conv}_k(U(x)) = \operatorname{conv}^\top_{k * (1, 1),\ 2}(x)

    A 3x3 filter reads each pixel of the small map once or twice along an axis, with weights that add up: a transposed
    4x4 convolution of stride 2, of 16 products a pixel of the small map where there were 36. It gives the same numbers
    up to rounding, and gradients go through the sums to the 3x3 weight and to whatever makes it, such as
    :func:`spectral_norm`. In bfloat16 and float16 the sums are rounded, too: errors are two to three times as large.

    The residual and progressive blocks use it.

    Args:
        conv: Any layer of feature maps. The cheaper way is that of ``nn.Conv2d``, also parametrized, with 3x3 filters
            that keep the size, without groups, hooks or a ``forward`` of its own; others are called.
        x: The small feature map.
        upsample: How to double height and width; the cheaper way is that of :func:`upsample_nearest`.
        fused: Whether to take the cheaper way where there is one; None: where it is faster too, from 8x8 on. A program
            that is exported with sizes left open holds for those on one side of that: say which way it is to go.

    Returns:
        The larger feature map.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - returns: ``(batch, out_channels, 2 * height, 2 * width)``

    References:
        Karras et al. 2019, "A Style-Based Generator Architecture for Generative Adversarial Networks", whose published
        code fuses layers this way.

    Example:
        >>> conv, x = torch.nn.Conv2d(4, 2, 3, padding=1), torch.randn(1, 4, 8, 8)
        >>> torch.allclose(upsample_conv2d(conv, x), conv(upsample_nearest(x)), atol=1e-5)
        True
    """
    kernel = upsampling_kernel(conv, x, upsample=upsample, fused=fused)
    y: Tensor = conv(upsample(x)) if kernel is None else upsample_by_kernel(conv, x, kernel)
    return y


def upsampling_kernel(
    conv: nn.Module, x: Tensor, *, upsample: Resample = upsample_nearest, fused: bool | None = None
) -> Tensor | None:
    """The kernel for :func:`upsample_by_kernel`; None where :func:`upsample_conv2d` is not to go the cheaper way."""
    large = _is_feature_map(x) and (min(x.shape[2:]) >= _SMALLEST if fused is None else fused)
    if large and upsample is upsample_nearest and _is_plain(conv) and type(weight := conv.weight) in _PLAIN:
        return _enlarge(weight, transposed=True)
    return None


def upsample_by_kernel(conv: Any, x: Tensor, kernel: Tensor) -> Tensor:
    """Upsample and convolve as one transposed convolution, with the kernel that was made of the layer's."""
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)


def conv2d_downsample(
    conv: nn.Module, x: Tensor, *, downsample: Resample = downsample_average, fused: bool | None = None
) -> Tensor:
    r"""Halve the resolution of what a convolution gives.

    .. math:: y = D(\operatorname{conv}_k(x)) = \tfrac14 \operatorname{conv}_{k * (1, 1),\ 2}(x)

    A 3x3 filter whose outputs are averaged in pairs reads four pixels along an axis: a 4x4 convolution of stride 2. All
    else is as in :func:`upsample_conv2d`.

    Args:
        conv: As there.
        x: The large feature map.
        downsample: How to halve height and width; the cheaper way is that of :func:`downsample_average`.
        fused: As there; it is faster from 16x16 on.

    Returns:
        The smaller feature map.

    Shape:
        - x: ``(batch, in_channels, height, width)`` with even height and width
        - returns: ``(batch, out_channels, height / 2, width / 2)``

    Example:
        >>> conv, x = torch.nn.Conv2d(4, 2, 3, padding=1), torch.randn(1, 4, 16, 16)
        >>> torch.allclose(conv2d_downsample(conv, x), downsample_average(conv(x)), atol=1e-5)
        True
    """
    large = _is_feature_map(x) and (min(x.shape[2:]) >= 2 * _SMALLEST if fused is None else fused)
    averaged = downsample is downsample_average and x.shape[-1] % 2 == x.shape[-2] % 2 == 0
    if large and averaged and _is_plain(conv) and type(weight := conv.weight) in _PLAIN:
        return F.conv2d(x, _enlarge(weight, transposed=False), conv.bias, stride=2, padding=1)
    return downsample(conv(x))


def _is_feature_map(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_floating_point()


def _is_plain(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a 3x3 convolution that keeps the size, and nobody looks on or does something else there."""
    if not isinstance(conv, nn.Conv2d) or not all(map(partial(_is_torchs, conv), ("forward", "_conv_forward"))):
        return False
    return not (
        is_watched(conv)
        or conv.kernel_size != (3, 3)
        or conv.padding not in ((1, 1), "same")
        or conv.stride != (1, 1)
        or conv.dilation != (1, 1)
        or conv.groups != 1
        or conv.padding_mode != "zeros"
    )


def _is_torchs(conv: nn.Conv2d, method: str) -> bool:
    """Whether neither a subclass nor the layer itself has a method of its own."""
    return getattr(type(conv), method) is getattr(nn.Conv2d, method) and method not in conv.__dict__


def _enlarge(weight: Tensor, *, transposed: bool) -> Tensor:
    """Kernels of 4x4 of those of 3x3: sums for a transposed convolution, means for another."""
    # A compiler makes one pass of the sums, and vmap does not say whether a weight is channels_last.
    if weight.device.type == "cpu" and not torch.compiler.is_compiling() and not is_transformed(weight):
        return _sum_by_products(weight, _SUMS_OF_FLIPPED if transposed else _MEANS, transposed=transposed)
    return _sum_neighbors(weight.flip(2, 3)).transpose(0, 1) if transposed else _sum_neighbors(weight) / 4


def _sum_neighbors(weight: Tensor) -> Tensor:
    """Convolve kernels with (1, 1) along both axes: 4x4 of 3x3."""
    wide = weight.to(wide_dtype(weight))  # narrower sums would lose what they add
    wide = F.pad(wide, (0, 1)) + F.pad(wide, (1, 0))
    return (F.pad(wide, (0, 0, 0, 1)) + F.pad(wide, (0, 0, 1, 0))).to(weight.dtype)


def _sum_by_products(weight: Tensor, sums: NDArray[np.float32], *, transposed: bool) -> Tensor:
    """Make the kernels of :func:`_sum_neighbors` by a matrix product, in the memory format of the weight.

    A convolution then takes them as they are. The means and the flipped kernels come from their own matrices.

    Args:
        weight: ``(out_channels, in_channels, 3, 3)``.
        sums: ``(16, 9)``, how much of each of 9 places goes to each of 16.
        transposed: Whether the kernels are to be ``(in_channels, out_channels, 4, 4)``.
    """
    wide = wide_dtype(weight)
    matrix, (outs, ins) = torch.from_numpy(sums).to(wide), weight.shape[:2]
    with full_precision(weight), exact_products():
        if weight.is_contiguous() or not weight.is_contiguous(memory_format=torch.channels_last):
            kernel = (weight.reshape(-1, 9).to(wide) @ matrix.T).view(outs, ins, 4, 4)
            return (kernel.transpose(0, 1) if transposed else kernel).to(weight.dtype)
        rows = rearrange(weight, "outs ins height width -> outs (height width ins)").to(wide)
        # Transposing a matrix is faster than any other permutation.
        places = rows.T.contiguous().view(9, ins, outs).transpose(0, 1) if transposed else rows.view(outs, 9, ins)
        kernel = torch.bmm(matrix.expand(len(places), 16, 9), places)
    return rearrange(kernel, "a (height width) b -> a b height width", height=4).to(weight.dtype)
