"""Batch normalization whose gains and biases come from a condition or a class.

Tested in ``tests/conditioning/test_batchnorm.py``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeGuard

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gan_blocks._checks import bad_shape, check_classes, check_factories, check_feature_map, check_sizes, check_vectors
from gan_blocks._transforms import is_watched
from gan_blocks.conditioning._modulation import FoldableBatchNorm2d
from gan_blocks.layers._modulation import modulate
from gan_blocks.layers._placing import placed
from gan_blocks.layers.batchnorm import Statistics

__all__ = ["ClassConditionalBatchNorm2d", "ConditionalBatchNorm2d", "project_together"]


class ConditionalBatchNorm2d(nn.Module):
    r"""Batch normalization with a gain and a bias per sample, projected linearly from a condition.

    .. math:: y_{nchw} = (1 + W^{\text{gain}}_c \cdot h_n)\,\hat x_{nchw} + W^{\text{bias}}_c \cdot h_n

    Here :math:`\hat x` is the output of :class:`gan_blocks.CrossReplicaBatchNorm2d` without parameters, which also says
    what train and eval mode normalize by, and :math:`h_n` the condition: class vector and latent variables in BigGAN.
    The gains are centered at 1, the biases at 0 (Appendix B); the projections have no bias of their own.

    On the CPU, float32 maps are normalized and modulated in one pass: all in eval mode, large ones in train mode.
    The result is that of the formula, up to rounding.

    Args:
        num_features: Number of channels of the feature map, at least 1.
        condition_dim: Width of the condition h, at least 1.
        linear_layer: Factory of both projections, called as
            ``linear_layer(condition_dim, num_features, bias=False)`` like ``nn.Linear``; those of
            BigGAN's published code are spectrally normalized.
        eps: Added to the variance, greater than 0.
        momentum: Weight of the newest batch in the running statistics, from 0 to 1.
        statistics: What eval mode normalizes by: ``"running"`` or ``"batch"``.
        process_group: The processes whose batches are normalized as one in train mode; None takes all of them.
        device: Device of the projections and of the statistics.
        dtype: Dtype of the projections and of the statistics.

    Attributes:
        norm: The normalization, without parameters.
        gain: The projection to the gains, less 1.
        bias: The projection to the biases.

    Shape:
        - x: ``(batch, num_features, height, width)``
        - condition: ``(batch, condition_dim)``
        - returns: same as ``x``

    Raises:
        ValueError: If an argument is outside its range, or an input has another shape.
        TypeError: If an input is no tensor.

    References:
        Brock et al. 2018, section 3 and Appendix B, and Appendix C for eps; Perez et al. 2018, "FiLM".

    Example:
        >>> norm = ConditionalBatchNorm2d(64, 148)
        >>> norm(torch.randn(4, 64, 8, 8), torch.randn(4, 148)).shape
        torch.Size([4, 64, 8, 8])
    """

    takes_condition = True

    def __init__(
        self,
        num_features: int,
        condition_dim: int,
        *,
        linear_layer: Callable[..., nn.Module] = nn.Linear,
        eps: float = 1e-4,
        momentum: float = 0.1,
        statistics: Statistics = "running",
        process_group: "dist.ProcessGroup | None" = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_factories("ConditionalBatchNorm2d", linear_layer=linear_layer)
        check_sizes("ConditionalBatchNorm2d", num_features=num_features, condition_dim=condition_dim)
        self.condition_dim = condition_dim
        self.norm = FoldableBatchNorm2d(
            num_features,
            eps=eps,
            momentum=momentum,
            affine=False,
            statistics=statistics,
            process_group=process_group,
            device=device,
            dtype=dtype,
        )
        self.gain = placed(linear_layer(condition_dim, num_features, bias=False), device, dtype)
        self.bias = placed(linear_layer(condition_dim, num_features, bias=False), device, dtype)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalize ``x``, then scale and shift each sample's channels by what its condition says."""
        check_feature_map("ConditionalBatchNorm2d", x, self.norm.num_features)
        check_vectors("ConditionalBatchNorm2d", "condition", condition, self.condition_dim, batch=x.shape[0])
        return self.modulate(x, self.gain(condition), self.bias(condition))

    def modulate(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        """Normalize ``x`` with projections that are at hand, ``(batch, num_features)`` each; the gain lacks its 1."""
        check_feature_map("ConditionalBatchNorm2d", x, self.norm.num_features)
        return _normalize(self.norm, x, 1 + gain, bias)


def project_together(
    norms: Sequence[nn.Module], batch: int, condition: Tensor | None
) -> list[Callable[[Tensor], Tensor]] | None:
    """Compute the gains and biases of several norms as one matrix product.

    Args:
        norms: The norms.
        batch: The batch size of their feature maps.
        condition: What they have in common.

    Returns:
        What each norm makes of its feature map; None where they are not all :class:`ConditionalBatchNorm2d` with
        ordinary linear layers, somebody looks on, or the condition is not theirs.
    """
    # A compiler joins small products by itself.
    if condition is None or torch.compiler.is_compiling():
        return None
    known: list[ConditionalBatchNorm2d] = []
    weights: list[Tensor] = []
    for norm in norms:
        if type(norm) is not ConditionalBatchNorm2d or is_watched(norm):
            return None
        if condition.shape != (batch, norm.condition_dim):
            return None
        known.append(norm)
        for layer in (norm.gain, norm.bias):
            if not _is_plain(layer) or is_watched(layer):
                return None
            weights.append(layer.weight)
    if not all(type(weight) in (Tensor, nn.Parameter) for weight in weights):  # a shard of one cannot be joined
        return None
    projected = F.linear(condition, torch.cat(weights)).split([len(weight) for weight in weights], dim=1)
    return [
        partial(norm.modulate, gain=gain, bias=bias)
        for norm, gain, bias in zip(known, projected[::2], projected[1::2], strict=True)
    ]


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward and layer.bias is None


class _ZeroTable(nn.Embedding):
    """A table that starts at zero."""

    class_tables = ("weight",)
    keeps_initial_values = True

    def reset_parameters(self) -> None:
        # Drawn and discarded, so that what is built after it has the random numbers that it has always had.
        super().reset_parameters()
        nn.init.zeros_(self.weight)


class ClassConditionalBatchNorm2d(nn.Module):
    r"""Batch normalization with a gain and a bias per class, each in a table of this layer's own.

    .. math:: y_{nchw} = (1 + G_{y_n c})\,\hat x_{nchw} + B_{y_n c}, \qquad G, B \in \mathbb{R}^{K \times C}

    Here :math:`\hat x` is the output of :class:`gan_blocks.CrossReplicaBatchNorm2d` without parameters, which also says
    what train and eval mode normalize by, and :math:`y_n` the label. So SN-GAN and SA-GAN tell their generators the
    class. Every layer has 2 K C parameters; :class:`ConditionalBatchNorm2d` projects one table that all layers share
    instead.

    On the CPU, float32 maps are normalized and modulated in one pass, as in :class:`ConditionalBatchNorm2d`.
    The range of the labels is checked on the CPU only, where that costs no synchronization.

    Args:
        num_features: Number of channels C of the feature map, at least 1.
        num_classes: Number of classes K, at least 1.
        eps: Added to the variance, greater than 0.
        momentum: Weight of the newest batch in the running statistics, from 0 to 1.
        statistics: What eval mode normalizes by: ``"running"`` or ``"batch"``.
        process_group: The processes whose batches are normalized as one in train mode; None takes all of them.
        device: Device of the tables and of the statistics.
        dtype: Dtype of the tables and of the statistics.

    Attributes:
        norm: The normalization, without parameters.
        gain: The table G of the gains, less 1. It starts at 0, so that all classes start alike.
        bias: The table B of the biases, which starts at 0.

    Shape:
        - x: ``(batch, num_features, height, width)``
        - y: ``(batch,)``, int64, values in ``[0, num_classes)``; or ``(batch, num_classes)``, floating, weights that
          mix the rows of the classes
        - returns: same as ``x``

    Raises:
        ValueError: If an argument is outside its range, an input has another shape, or a label is outside its range.
        TypeError: If ``y`` is neither int64 nor floating.

    References:
        Dumoulin et al. 2017, "A Learned Representation For Artistic Style"; de Vries et al. 2017, "Modulating early
        visual processing by language"; Brock et al. 2018, section 3 (the baseline).

    Example:
        >>> norm = ClassConditionalBatchNorm2d(64, 10)
        >>> norm(torch.randn(4, 64, 8, 8), torch.tensor([0, 1, 2, 9])).shape
        torch.Size([4, 64, 8, 8])
    """

    takes_condition = True

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        eps: float = 1e-4,
        momentum: float = 0.1,
        statistics: Statistics = "running",
        process_group: "dist.ProcessGroup | None" = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes("ClassConditionalBatchNorm2d", num_features=num_features, num_classes=num_classes)
        self.num_classes = num_classes
        self.norm = FoldableBatchNorm2d(
            num_features,
            eps=eps,
            momentum=momentum,
            affine=False,
            statistics=statistics,
            process_group=process_group,
            device=device,
            dtype=dtype,
        )
        self.gain = _ZeroTable(num_classes, num_features, device=device, dtype=dtype)
        self.bias = _ZeroTable(num_classes, num_features, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Set gains and biases to the identity; the statistics of ``norm`` are left to it."""
        self.gain.reset_parameters()
        self.bias.reset_parameters()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Normalize ``x``, then scale and shift each sample's channels by the row of its class, or by a mixture."""
        check_feature_map("ClassConditionalBatchNorm2d", x, self.norm.num_features)
        check_classes("ClassConditionalBatchNorm2d", "y", y, self.num_classes)
        if y.shape[0] != x.shape[0]:
            raise bad_shape("ClassConditionalBatchNorm2d", "y", str((x.shape[0], *y.shape[1:])), y)
        if y.is_floating_point():
            y = y.to(self.gain.weight.dtype)
            return _normalize(self.norm, x, 1 + y @ self.gain.weight, y @ self.bias.weight)
        return _normalize(self.norm, x, 1 + self.gain(y), self.bias(y))


def _normalize(norm: FoldableBatchNorm2d, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Normalize ``x``, then apply gain and bias of each sample and channel, ``(batch, channels)``."""
    moments = None if is_watched(norm) else norm.moments(x)
    if moments is not None:
        return modulate(x, *moments, gain, bias, eps=norm.eps, of_batch=norm.training, group=norm.group)
    normalized: Tensor = norm(x)
    gain, bias = (rearrange(value, "batch c -> batch c 1 1").to(normalized.dtype) for value in (gain, bias))
    return torch.addcmul(bias, normalized, gain)
