"""Normalisation and modulation of a feature map in one pass, with a gradient in closed form.

Tested through ``tests/conditioning/test_batchnorm.py``, where the class is used.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from gan_blocks.layers.batchnorm import BatchNorm2d

__all__ = ["FoldableBatchNorm2d", "modulate"]

# Below, the fixed costs outweigh the passes saved. Measured on one CPU core in float32, forward and backward:
# 2^15 elements 0.6 times as fast as the plain formula, 2^17 1.05, 2^19 1.2 to 1.4, 2^21 1.4 to 1.7 (channels_last).
_SMALLEST_TRAINING_MAP = 2**18


class FoldableBatchNorm2d(BatchNorm2d):
    """Batch normalisation without parameters that can tell its statistics instead of applying them."""

    @property
    def uses_own_batch(self) -> bool:
        """Whether an input is normalised by its own mean and variance, and not by other processes' too."""
        return self.training and self._sharing_group() is None

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the mean and biased variance to normalise ``x`` by, or None where an ordinary call serves better.

        In train mode the running statistics move, as in a call. The moments are constants to autograd, unless they are
        shared with other processes.
        """
        mean, variance = self.running_mean, self.running_var
        if self._collecting or mean is None or variance is None or mean.dtype != x.dtype:
            return None
        # Measured on the CPU only, where bfloat16 gained nothing. A compiler fuses the plain formula by itself.
        if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or torch.compiler.is_compiling():
            return None
        if not self.training:
            return mean, variance
        group = self._sharing_group()
        if group is not None and x.numel() > 0:
            return self._share_moments(x, group)
        if self.statistics != "running" or x.numel() < _SMALLEST_TRAINING_MAP or x.numel() <= x.shape[1]:
            return None
        with torch.no_grad():
            return torch.batch_norm_update_stats(x, mean, variance, self.momentum)


def modulate(
    x: Tensor, mean: Tensor, variance: Tensor, gain: Tensor, bias: Tensor, *, eps: float, of_batch: bool
) -> Tensor:
    r"""Normalise ``x`` and apply each sample's gain and bias.

    .. math:: y = x \cdot g s + (b - \mu g s), \qquad s = 1 / \sqrt{\sigma^2 + \epsilon}

    ``of_batch`` says that the moments are those of ``x`` itself, so that its gradient passes through them, although
    they are constants to autograd.

    Shape:
        - x: ``(batch, channels, height, width)``
        - mean, variance: ``(channels,)``
        - gain, bias: ``(batch, channels)``
        - returns: same as ``x``
    """
    if not of_batch:
        return _fold(x, mean, variance, gain, bias, eps)
    y: Tensor = _NormalizeByBatch.apply(x, mean, variance, gain, bias, eps)  # type: ignore[no-untyped-call]
    return y


def _fold(x: Tensor, mean: Tensor, variance: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    scale = gain * (variance + eps).rsqrt()
    return torch.addcmul(_over_pixels(bias - mean * scale), x, _over_pixels(scale))


def _over_pixels(values: Tensor) -> Tensor:
    return rearrange(values, "... channels -> ... channels 1 1")


class _NormalizeByBatch(torch.autograd.Function):
    r"""The folded normalisation, where mean and variance are functions of ``x``.

    With the gradient :math:`\delta` of y, the normalised map :math:`\hat x` and averages over samples and pixels:

    .. math:: \frac{\partial L}{\partial x} =
        s\big(g\,\delta - \overline{g\,\delta} - \hat x\,\overline{g\,\delta\,\hat x}\big)

    Autograd would keep both ``x`` and its normalised form, and read them in twice as many passes.
    """

    @staticmethod
    def forward(x: Tensor, mean: Tensor, variance: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
        return _fold(x, mean, variance, gain, bias, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, mean, variance, gain, _, ctx.eps = inputs
        ctx.save_for_backward(x, mean, variance, gain)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (delta,) = gradients
        x, mean, variance, gain = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted, and it passes through the moments
            variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        inverse = (variance + ctx.eps).rsqrt()
        of_bias = delta.sum((2, 3))
        of_gain = ((delta * x).sum((2, 3)) - mean * of_bias) * inverse
        count = x.numel() // x.shape[1]
        average = (gain * of_bias).sum(0) / count
        slope = inverse.square() * (gain * of_gain).sum(0) / count
        # In this order: with the broadcast term first, addcmul takes twice the time.
        of_x = (delta * _over_pixels(gain * inverse)).addcmul_(x, _over_pixels(-slope))
        return of_x.add_(_over_pixels(slope * mean - inverse * average)), None, None, of_gain, of_bias, None
