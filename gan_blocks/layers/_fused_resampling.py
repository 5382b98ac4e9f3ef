r"""A 3x3 convolution beside a change of resolution, as one 4x4 convolution of stride 2: equal, and 2.25 times cheaper.

A 3x3 convolution of an upsampled map reads each pixel of the small map once or twice along an axis, with weights that
add up; one whose outputs are averaged in pairs reads four pixels along an axis. So with the kernel
:math:`(k * (1, 1))` along both axes,

.. math:: \operatorname{conv}_{3 \times 3} \circ \operatorname{up} = \operatorname{conv}^\top_{4 \times 4,\, 2}, \qquad
    \operatorname{down} \circ \operatorname{conv}_{3 \times 3} = \tfrac14 \operatorname{conv}_{4 \times 4,\, 2}

of 16 products a pixel of the small map where there were 36. The gradient goes through the sums to the 3x3 weight, and
through whatever makes that weight.

In bfloat16 and float16 the sums of weights are rounded, too, so that errors are two to three times as large.

Tested in ``tests/layers/test_fused_resampling.py``; ``benchmarks/fused_resampling.py`` measures from which size on it
is faster.
"""

from collections.abc import Callable
from typing import TypeAlias, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from gan_blocks.layers.resampling import downsample_average, upsample_nearest

__all__ = ["conv_of_upsampled", "downsampled_conv"]

Resample: TypeAlias = Callable[[Tensor], Tensor]

_SMALLEST = 8  # height and width of the smaller map; below, the kernels for strides are slower


def conv_of_upsampled(conv: nn.Module, x: Tensor, upsample: Resample = upsample_nearest) -> Tensor:
    """``conv(upsample(x))``, the cheaper way where there is one and it is faster."""
    nearest = upsample is upsample_nearest and min(x.shape[2:]) >= _SMALLEST
    if nearest and _is_plain(conv) and type(weight := conv.weight) in _PLAIN:
        kernel = _with_neighbors(weight.flip(2, 3)).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)
    y: Tensor = conv(upsample(x))
    return y


def downsampled_conv(conv: nn.Module, x: Tensor, downsample: Resample = downsample_average) -> Tensor:
    """``downsample(conv(x))``, the cheaper way where there is one and it is faster."""
    height, width = x.shape[2:]
    averaged = downsample is downsample_average and min(height, width) >= 2 * _SMALLEST
    if averaged and height % 2 == width % 2 == 0 and _is_plain(conv) and type(weight := conv.weight) in _PLAIN:
        return F.conv2d(x, _with_neighbors(weight) / 4, conv.bias, stride=2, padding=1)
    return downsample(conv(x))


_PLAIN = (Tensor, nn.Parameter)  # a sharded weight cannot be padded


def _is_plain(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a 3x3 convolution that keeps the size, and nobody looks on or does something else there."""
    if not isinstance(conv, nn.Conv2d) or type(conv).forward is not nn.Conv2d.forward:
        return False
    hooks = conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks
    return not (
        hooks
        or _has_any_global_hook()
        or conv.kernel_size != (3, 3)
        or conv.padding not in ((1, 1), "same")
        or conv.stride != (1, 1)
        or conv.dilation != (1, 1)
        or conv.groups != 1
        or conv.padding_mode != "zeros"
    )


def _with_neighbors(weight: Tensor) -> Tensor:
    """Convolve kernels with (1, 1) along both axes: 4x4 of 3x3."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))  # narrower sums would lose what they add
    wide = F.pad(wide, (0, 1)) + F.pad(wide, (1, 0))
    return (F.pad(wide, (0, 0, 0, 1)) + F.pad(wide, (0, 0, 1, 0))).to(weight.dtype)
