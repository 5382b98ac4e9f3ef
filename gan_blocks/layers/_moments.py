"""Mean and variance per channel of values that lie in several batches or processes.

Tested through ``tests/layers/test_batchnorm.py`` and ``tests/layers/test_cross_replica_batchnorm.py``.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor

from gan_blocks._precision import wide_dtype

__all__ = [
    "GroupReference",
    "Moments",
    "gather_rows",
    "over_pixels",
    "own_moments",
    "shared_moments",
    "sharing_group",
    "sum_over_processes",
]


class Moments(NamedTuple):
    """What is known about a set of values per channel, in float64; two sets combine exactly."""

    num_values: Tensor  # ()
    mean: Tensor  # (channels,)
    centered_squares: Tensor  # (channels,): sum of (value - mean)^2

    def combine(self, other: "Moments") -> "Moments":
        """Of both sets together."""
        # Chan et al. 1983: the difference of the means, not of raw squares, so that a large mean costs no digits.
        num_values = self.num_values + other.num_values
        share = other.num_values / num_values
        difference = other.mean - self.mean
        between = difference.square() * (self.num_values * share)
        return Moments(
            num_values,
            self.mean + difference * share,
            self.centered_squares + other.centered_squares + between,
        )

    def row(self) -> Tensor:
        """As one vector, to be sent: ``(1 + 2 * channels,)``."""
        return torch.cat([self.num_values.reshape(1), self.mean, self.centered_squares])

    @staticmethod
    def of_rows(rows: Tensor) -> "Moments":
        """Of all sets together, each a :meth:`row`: ``(sets, 1 + 2 * channels)``. Some may be of no values."""
        num_values, means, centered_squares = rows.double().split([1, *[rows.shape[1] // 2] * 2], dim=1)
        total = num_values.sum()
        mean = (num_values / total * means).sum(0)
        between = num_values * (means - mean).square()
        return Moments(total, mean, (centered_squares + between).sum(0))


class GroupReference:
    """Holds a process group, which can be neither copied nor saved; a copy of this holds the same one."""

    def __init__(self, group: "dist.ProcessGroup | None") -> None:
        self.group = group

    def __deepcopy__(self, memo: dict[int, Any]) -> "GroupReference":
        """Share the group: a deep copy of a model works in the same processes."""
        return self


def sharing_group(group: "dist.ProcessGroup | None") -> "dist.ProcessGroup | None":
    """The group, or all processes for None; None where this process would share with none other."""
    if not dist.is_available() or not dist.is_initialized():
        return None
    group = dist.group.WORLD if group is None else group
    return group if dist.get_world_size(group) > 1 else None


def gather_rows(row: Tensor, group: "dist.ProcessGroup") -> Tensor:
    """The vectors of all processes in the order of their ranks: ``(processes, length)``, the same bits everywhere."""
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, row, group=group)
    return torch.stack(rows)


def shared_moments(x: Tensor, group: "dist.ProcessGroup") -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and biased variance of the values of all processes, per channel.

    One collective here and one in the backward pass. Every process must take part in both, so ``x`` has to require a
    gradient in all of them or in none. Twice differentiable.

    Args:
        x: This process's values; at least one per channel, as many as it likes.
        group: The processes.

    Shape:
        - x: ``(batch, channels, height, width)``
        - returns: ``()``, ``(channels,)`` and ``(channels,)``, in float32 or wider
    """
    count, mean, variance = _SharedMoments.apply(x, group)  # type: ignore[no-untyped-call]
    return count, mean, variance


class _SharedMoments(torch.autograd.Function):
    r"""Moments of N values, some of which are here; a change of any of them changes the loss of every process r.

    .. math:: \frac{\partial L}{\partial x_i} = \frac{1}{N}\sum_r \frac{\partial L_r}{\partial \mu}
        + \frac{2 (x_i - \mu)}{N} \sum_r \frac{\partial L_r}{\partial \sigma^2}
    """

    @staticmethod
    def forward(x: Tensor, group: "dist.ProcessGroup") -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = own_moments(x)
        num_values = mean.new_full((), x.numel() // x.shape[1])
        # Sent in the dtype of the statistics, which is half the bytes of float64, and combined in float64.
        own = Moments(num_values, mean, variance * num_values)
        count, mean, centered_squares = Moments.of_rows(gather_rows(own.row(), group))
        return count, mean.to(variance.dtype), (centered_squares / count).to(variance.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, ctx.group = inputs
        count, mean, _ = output
        ctx.mark_non_differentiable(count)
        ctx.save_for_backward(x, mean, count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, mean, count = ctx.saved_tensors
        _, of_mean, of_variance = gradients
        row = torch.cat([of_mean, of_variance])
        of_mean, of_variance = (sum_over_processes(row, ctx.group) / count).to(row.dtype).chunk(2)
        slope = 2 * of_variance
        offset = of_mean - slope * mean
        return torch.addcmul(over_pixels(offset), x.to(row.dtype), over_pixels(slope)).to(x.dtype), None


def sum_over_processes(values: Tensor, group: "dist.ProcessGroup") -> Tensor:
    """The sum of all processes' values, in each of them; differentiable any number of times."""
    total: Tensor = _SumOverProcesses.apply(values, group)  # type: ignore[no-untyped-call]
    return total


class _SumOverProcesses(torch.autograd.Function):
    """A sum that every process has; each one's loss depends on all addends, so that the gradient is a sum again."""

    @staticmethod
    def forward(values: Tensor, group: "dist.ProcessGroup") -> Tensor:
        total = values.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return sum_over_processes(gradients[0], ctx.group), None


def own_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of this process's values, per channel, in float32 or wider."""
    dtype = wide_dtype(x)
    # In float64 the kernel's sums, one value after the other, lose a digit or two; in float32 it adds up in float64.
    if x.device.type == "cpu" and dtype == torch.float32 and not torch.compiler.is_compiling():
        # 27 times as fast as var_mean on a channels-last map here; momentum 1 and fresh buffers leave none behind.
        # Buffers of float32 keep it from rounding to the bits of a bfloat16 input.
        buffers = torch.zeros(2, x.shape[1], dtype=dtype)
        return torch.batch_norm_update_stats(x, buffers[0], buffers[1], 1.0)
    if dtype == torch.float64 and x.device.type == "cpu":
        mean = x.mean((0, 2, 3))  # adds up in pairs, unlike var_mean
        return mean, (x - over_pixels(mean)).square().mean((0, 2, 3))
    variance, mean = torch.var_mean(x.to(dtype), (0, 2, 3), correction=0)
    return mean, variance


def over_pixels(values: Tensor) -> Tensor:
    """One value per channel, as it broadcasts over a feature map."""
    return rearrange(values, "... channels -> ... channels 1 1")
