"""Residual blocks of a trained generator with their norms folded away, for sampling.

Tested in ``tests/blocks/test_folding.py``.
"""

import copy
from typing import Any, TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gan_blocks._checks import check_feature_map, check_module, check_vectors
from gan_blocks._transforms import is_transformed, is_watched
from gan_blocks.blocks.bottleneck import BottleneckGeneratorBlock
from gan_blocks.blocks.residual import ResidualGeneratorBlock
from gan_blocks.conditioning.batchnorm import ConditionalBatchNorm2d
from gan_blocks.layers.batchnorm import CrossReplicaBatchNorm2d
from gan_blocks.layers.fused_resampling import upsample_by_kernel, upsampling_kernel
from gan_blocks.layers.resampling import upsample_nearest

__all__ = ["fold_generator_blocks"]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def fold_generator_blocks(model: ModuleT) -> ModuleT:
    r"""Replace the residual blocks of a generator by ones that compute the same in evaluation, in fewer operations.

    For sampling, once weights and statistics are final. With the statistics :math:`\mu, \sigma^2` of the norm that
    follows a convolution,

    .. math:: (1 + g)\,\frac{w * h + b - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta
        = (1 + g)\,(w' * h + b') + \beta, \qquad w' = \frac{w}{\sqrt{\sigma^2 + \epsilon}},
        \quad b' = \frac{b - \mu}{\sqrt{\sigma^2 + \epsilon}}

    so that such a norm is one multiplication and one addition. All gains and biases of a block come from one matrix
    product, the kernels of upsampled convolutions are made once, and without gradients feature maps are changed in
    place. Values and gradients of the inputs equal those of the blocks up to rounding.

    Blocks are replaced that are :class:`BottleneckGeneratorBlock` or :class:`ResidualGeneratorBlock` in evaluation mode
    with :class:`ConditionalBatchNorm2d` of ``nn.Linear`` projections and stored statistics, ``nn.Conv2d`` and
    ``nn.ReLU``, without parametrizations (see :func:`fold_spectral_norm`) or hooks. Others stay as they are. Work on a
    copy of a model that trains on: the replaced blocks have constant weights and other names in the state dict.

    Args:
        model: The generator; it is changed in place.

    Returns:
        ``model`` itself.

    Raises:
        TypeError: If ``model`` is no module.

    Example:
        >>> from functools import partial
        >>> from gan_blocks import BottleneckGeneratorBlock, ConditionalBatchNorm2d
        >>> block = BottleneckGeneratorBlock(64, 32, norm_layer=partial(ConditionalBatchNorm2d, condition_dim=8))
        >>> model = fold_generator_blocks(nn.ModuleList([block]).eval())
        >>> x, condition = torch.randn(2, 64, 4, 4), torch.randn(2, 8)
        >>> torch.allclose(model[0](x, condition), block(x, condition), atol=1e-5)
        True
    """
    check_module("fold_generator_blocks", "model", model)
    folded = dict[nn.Module, nn.Module]()  # a block that stands in several places stays one
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is not None and _is_foldable(child):
                if child not in folded:
                    folded[child] = _folded(child)
                setattr(module, name, folded[child])
    return model


@torch.no_grad()
@torch.inference_mode(mode=False)
def _folded(block: BottleneckGeneratorBlock | ResidualGeneratorBlock) -> nn.Module:
    # A copy, since parts of it are kept. Nor may they be made for inference: a gradient may pass through them later.
    return _FoldedBlock(copy.deepcopy(block))


class _FoldedBlock(nn.Module):
    """A residual block of a generator in evaluation; its weights are constants."""

    mean: Tensor
    variance: Tensor
    kernel: Tensor | None

    def __init__(self, block: BottleneckGeneratorBlock | ResidualGeneratorBlock) -> None:
        super().__init__()
        convs, norms, _ = _parts(block)
        self.in_channels, self.out_channels = block.in_channels, block.out_channels
        self.resample = block.resample
        residual = isinstance(block, ResidualGeneratorBlock)
        self.upsampled = (0 if residual else 1) if block.upsample else None  # the convolution after U
        self.shortcut = block.get_submodule("shortcut") if residual else nn.Identity()
        self.condition_dim = norms[0].condition_dim
        self.widths = [norm.norm.num_features for norm in norms for _ in range(2)]
        self.project = nn.Linear(self.condition_dim, sum(self.widths), bias=False, device="meta")
        rows = [layer.weight for norm in norms for layer in (norm.gain, norm.bias)]
        self.project.weight = nn.Parameter(torch.cat(rows))
        self.eps = norms[0].norm.eps
        self.register_buffer("mean", norms[0].norm.running_mean)
        self.register_buffer("variance", norms[0].norm.running_var)
        folded = [_fold_statistics(conv, norm.norm) for conv, norm in zip(convs[:-1], norms[1:], strict=True)]
        self.convs = nn.ModuleList([*folded, convs[-1]])
        self.register_buffer("kernel", None, persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        check_feature_map("fold_generator_blocks", x, self.in_channels)
        check_vectors("fold_generator_blocks", "condition", condition, self.condition_dim, batch=x.shape[0])
        gains_and_biases = self.project(condition).split(self.widths, dim=1)
        h = x
        for number, conv in enumerate(self.convs):
            gain, bias = 1 + gains_and_biases[2 * number], gains_and_biases[2 * number + 1]
            h = self._enter(h, gain, bias) if number == 0 else _modulate(h, gain, bias)
            h = self._upsample(conv, h) if number == self.upsampled else conv(h)
        return self._add_shortcut(h, self.shortcut(x)[:, : self.out_channels])

    def _enter(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        """Normalize and modulate the input, which the shortcut needs as it is."""
        if x.dtype == self.mean.dtype:
            gain = gain * (self.variance + self.eps).rsqrt()
            return _modulate(x - rearrange(self.mean, "c -> c 1 1"), gain, bias)
        return _modulate(F.batch_norm(x, self.mean, self.variance, eps=self.eps), gain, bias)

    def _upsample(self, conv: Any, h: Tensor) -> Tensor:
        """As ``upsample_conv2d``, whose kernel is made once."""
        kernel = self.kernel
        if kernel is None:
            with torch.inference_mode(mode=False):  # the next call may be part of a graph
                kernel = upsampling_kernel(conv, h, upsample=self.resample)
                if kernel is not None and not is_transformed():  # a transform's tensors end with it
                    kernel = self.kernel = kernel.contiguous(memory_format=_memory_format(conv))
        if kernel is None:
            y: Tensor = conv(self.resample(h))
            return y
        return upsample_by_kernel(conv, h, kernel)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.kernel = None  # of the weights that were there

    def _add_shortcut(self, h: Tensor, shortcut: Tensor) -> Tensor:
        """The sum, in place where no gradient is wanted; a map of repeated pixels is never made."""
        if self.upsampled is None:
            return _plus(h, shortcut)
        if self.resample is not upsample_nearest:
            return _plus(h, self.resample(shortcut))
        squares = rearrange(h, "batch c (height two) (width too) -> batch c height two width too", two=2, too=2)
        y = _plus(squares, rearrange(shortcut, "batch c height width -> batch c height 1 width 1"))
        return rearrange(y, "batch c height two width too -> batch c (height two) (width too)")


def _plus(h: Tensor, addend: Tensor) -> Tensor:
    wide = torch.promote_types(h.dtype, addend.dtype) == h.dtype  # under autocast only the shortcut may be
    return h.add_(addend) if wide and _may_write() else h + addend


def _may_write() -> bool:
    """Whether neither autograd nor a transform of torch.func needs feature maps as they were."""
    return not (torch.is_grad_enabled() or is_transformed())


def _modulate(h: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Apply gain, bias and ReLU; in place where no gradient is wanted."""
    gain, bias = (rearrange(value, "batch c -> batch c 1 1").to(h.dtype) for value in (gain, bias))
    if _may_write():
        return torch.addcmul(bias, h, gain, out=h).relu_()
    return F.relu(torch.addcmul(bias, h, gain))


@torch.no_grad()
def _fold_statistics(conv: nn.Conv2d, norm: CrossReplicaBatchNorm2d) -> nn.Conv2d:
    """A convolution that gives what the norm after this one makes of its output."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = (variance + norm.eps).rsqrt()
    bias = -mean if conv.bias is None else conv.bias - mean
    weight = conv.weight * rearrange(scale, "out -> out 1 1 1")
    folded = copy.deepcopy(conv)
    folded.weight = nn.Parameter(weight.contiguous(memory_format=_memory_format(conv)))
    folded.bias = nn.Parameter(bias * scale)
    return folded


def _memory_format(conv: nn.Conv2d) -> torch.memory_format:
    nhwc = conv.weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if nhwc else torch.contiguous_format


def _parts(block: nn.Module) -> tuple[list[Any], list[Any], list[Any]]:
    """Convolutions, norms and activations of the residual, in order."""
    convs, norms, acts = (
        [child for name, child in block.named_children() if name.startswith(kind)] for kind in ("conv", "norm", "act")
    )
    return convs, norms, acts


def _is_foldable(block: nn.Module) -> TypeGuard[BottleneckGeneratorBlock | ResidualGeneratorBlock]:
    if type(block) not in (BottleneckGeneratorBlock, ResidualGeneratorBlock):
        return False
    convs, norms, acts = _parts(block)
    plain = all(type(conv) is nn.Conv2d for conv in convs) and all(type(act) is nn.ReLU for act in acts)
    untouched = not any(map(is_watched, block.modules()))
    return plain and untouched and not block.training and all(map(_has_statistics, norms))


def _has_statistics(norm: nn.Module) -> bool:
    return (
        type(norm) is ConditionalBatchNorm2d
        and type(norm.gain) is type(norm.bias) is nn.Linear
        and norm.gain.bias is norm.bias.bias is None
        and norm.norm.running_mean is not None
    )
