"""Normalization and modulation of a feature map in one pass, with a gradient in closed form.

Tested through ``tests/conditioning/test_batchnorm.py`` and ``tests/layers/test_cross_replica_batchnorm.py``.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import forward_ad

from gan_blocks._transforms import is_transformed
from gan_blocks.layers._moments import over_pixels, shared_moments, sum_over_processes

__all__ = ["is_reverse_mode", "modulate"]


def is_reverse_mode() -> bool:
    """Whether a gradient in closed form serves: neither forward mode nor a transform such as vmap is under way."""
    return not is_transformed() and forward_ad._current_level < 0


def modulate(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gain: Tensor,
    bias: Tensor,
    *,
    eps: float,
    of_batch: bool,
    group: "dist.ProcessGroup | None" = None,
) -> Tensor:
    r"""Normalize ``x`` and apply each sample's gain and bias.

    .. math:: y = x \cdot g s + (b - \mu g s) = (x - \mu) \cdot g s + b, \qquad s = 1 / \sqrt{\sigma^2 + \epsilon}

    ``of_batch`` says that the moments, constants to autograd, are those of ``x`` itself, with the ``x`` of the other
    processes of ``group`` where there is one: so its gradient passes through them.

    Shape:
        - x: ``(batch, channels, height, width)``
        - mean, variance: ``(channels,)``
        - gain, bias: ``(batch, channels)``
        - returns: same as ``x``
    """
    if not of_batch:
        return _apply(x, mean, variance, gain, bias, eps)
    y: Tensor = _NormalizeByBatch.apply(x, mean, variance, gain, bias, eps, group)  # type: ignore[no-untyped-call]
    return y


def _apply(x: Tensor, mean: Tensor, variance: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The mean is taken off first: with a large one, x g s and b - mean g s would cancel and lose their digits."""
    centered, scale = x - over_pixels(mean), over_pixels(gain * (variance + eps).rsqrt())
    if torch.is_grad_enabled() or not is_reverse_mode():
        return torch.addcmul(over_pixels(bias), centered, scale)
    return centered.mul_(scale).add_(over_pixels(bias))


def _fold(x: Tensor, mean: Tensor, variance: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    scale = gain * (variance + eps).rsqrt()
    return torch.addcmul(over_pixels(bias - mean * scale), x, over_pixels(scale))


class _NormalizeByBatch(torch.autograd.Function):
    r"""The folded normalization, where mean and variance are functions of ``x``.

    With the gradient :math:`\delta` of y, the normalized map :math:`\hat x` and averages over the samples and pixels of
    all processes:

    .. math:: \frac{\partial L}{\partial x} =
        s\big(g\,\delta - \overline{g\,\delta} - \hat x\,\overline{g\,\delta\,\hat x}\big)

    Autograd would keep both ``x`` and its normalized form, and read them in twice as many passes.
    """

    @staticmethod
    def forward(
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        gain: Tensor,
        bias: Tensor,
        eps: float,
        group: "dist.ProcessGroup | None",  # noqa: ARG004
    ) -> Tensor:
        return _fold(x, mean, variance, gain, bias, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, mean, variance, gain, _, ctx.eps, ctx.group = inputs
        ctx.save_for_backward(x, mean, variance, gain)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (delta,) = gradients
        x, mean, variance, gain = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted, and it passes through the moments
            variance, mean = _moments(x, ctx.group)
        inverse = (variance + ctx.eps).rsqrt()
        of_bias = delta.sum((2, 3))
        of_gain = ((delta * x).sum((2, 3)) - mean * of_bias) * inverse
        sums = torch.cat(
            [(gain * of_bias).sum(0), (gain * of_gain).sum(0), mean.new_full((1,), x.numel() // x.shape[1])]
        )
        if ctx.group is not None:
            sums = sum_over_processes(sums, ctx.group)
        average, slope, _ = (sums / sums[-1]).split([len(mean), len(mean), 1])
        slope = inverse.square() * slope
        # In this order: with the broadcast term first, addcmul takes twice the time.
        of_x = (delta * over_pixels(gain * inverse)).addcmul_(x, over_pixels(-slope))
        of_x = of_x.add_(over_pixels(slope * mean - inverse * average)).to(x.dtype)
        return of_x, None, None, of_gain, of_bias, None, None


def _moments(x: Tensor, group: "dist.ProcessGroup | None") -> tuple[Tensor, Tensor]:
    """Variance and mean, differentiable."""
    if group is None:
        return torch.var_mean(x, (0, 2, 3), correction=0)
    _, mean, variance = shared_moments(x, group)
    return variance, mean
