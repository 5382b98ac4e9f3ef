"""Batch-norm statistics collected at sampling time.

Tested in ``tests/training/test_standing_statistics.py``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gan_blocks._checks import bad_kind, bad_value, check_module
from gan_blocks._precision import to_float64
from gan_blocks._transforms import uncompiled
from gan_blocks.layers._moments import Moments, gather_rows

__all__ = ["CollectsStatistics", "collects_statistics", "standing_statistics"]


@runtime_checkable
class CollectsStatistics(Protocol):
    """What a norm offers to take part in :func:`standing_statistics`: :class:`CrossReplicaBatchNorm2d` does.

    A norm of one's own with these four methods is found wherever statistics are collected, without being told of.

    Example:
        >>> from gan_blocks import CrossReplicaBatchNorm2d
        >>> [isinstance(norm, CollectsStatistics) for norm in (CrossReplicaBatchNorm2d(3), nn.BatchNorm2d(3))]
        [True, False]
    """

    def start_collecting(self) -> None:
        """Normalize by the batch at hand from now on, and pool what normalizes, from nothing."""

    def collected_row(self, like: Tensor) -> Tensor:
        """What this process has pooled as one float64 vector, ``(length,)``, on the device of ``like``.

        Its length is the same in every process; zeros stand for nothing.
        """

    def collect_rows(self, rows: Tensor, like: Tensor) -> None:
        """Take what all processes have pooled, ``(processes, length)``, in place of what this one has."""

    def stop_collecting(self, *, store: bool) -> None:
        """End it: normalize in eval mode by what has been pooled if ``store``, else as before. May come twice."""


def standing_statistics(
    model: nn.Module, batches: Iterable[tuple[Any, ...]], *, process_group: "dist.ProcessGroup | None" = None
) -> None:
    r"""Give every batch norm of a model the statistics of many batches pooled, to evaluate with.

    Running averages describe the weights of the training steps behind them, not the averaged weights that one samples
    with, and the batch's own statistics make a sample depend on the others. So the model is run once per batch, every
    :class:`CrossReplicaBatchNorm2d` (those inside :class:`ConditionalBatchNorm2d` too) normalizing by the batch at
    hand, and the counts, means and centered squares of all passes are pooled per channel. With the n_b values x of
    pass b

    .. math:: \mu = \frac{1}{\sum_b n_b}\sum_b \sum_i x_{bi}, \qquad
        \sigma^2 = \frac{1}{\sum_b n_b}\sum_b \sum_i (x_{bi} - \mu)^2

    become the layer's ``running_mean`` and ``running_var``; eval mode then normalizes by them, whatever the layer's
    ``statistics``. They go with the weights of the moment: give them to a copy of a model that is still trained, or to
    ``copy.deepcopy(average.module)`` of an :class:`ExponentialMovingAverage` that is still updated. The paper takes
    100 batches of fresh noise, typically.

    Because each pass normalizes by its own batch, only layers with no other CrossReplicaBatchNorm2d before them are
    independent of how samples are split into batches; take batches of the size used in training. Meanwhile all modules
    are in eval mode, so that dropout is off and no power iteration advances, no gradient is recorded, and compiled
    models run uncompiled. Afterward each module is in its own mode again. A layer that no pass has reached keeps its
    statistics. Batch norms of ``torch.nn`` take part in the same way, ``nn.SyncBatchNorm`` by the batch of its own
    process; one without running statistics, which normalizes by the batch at hand whatever the mode, is left as it is.

    The batches may be spread over the processes of a group, in any way: each passes those that it has, none perhaps,
    and all of them get the same statistics, those of all passes. This takes one collective operation at the end.

    Args:
        model: The network, usually the generator with averaged weights.
        batches: One tuple of positional arguments a pass: ``model(*batch)``. A generator is drawn from lazily, with
            the model already in eval mode and gradients off.
        process_group: Processes that pool what they collect, such as ``torch.distributed.group.WORLD``, each of which
            has to call this; None: only this process.

    Raises:
        ValueError: If ``model`` has no norm that takes part, or ``batches`` is empty, in all processes.
        TypeError: If a batch is not a tuple.
        Exception: Whatever the model or ``batches`` raises. After any exception the old statistics are in place.

    References:
        Brock et al. 2018, Appendix C.1.

    Example:
        >>> from gan_blocks import CrossReplicaBatchNorm2d
        >>> norm = CrossReplicaBatchNorm2d(1)
        >>> standing_statistics(norm, [(torch.zeros(1, 1, 2, 2),), (torch.ones(3, 1, 2, 2),)])
        >>> norm.running_mean.item(), norm.running_var.item()
        (0.75, 0.1875)
    """
    check_module("standing_statistics", "model", model)
    layers = _collecting_norms(model)
    if not layers:
        rule = "a module with a batch norm in it, or another norm that collects statistics"
        raise bad_value("standing_statistics", "model", rule, type(model).__name__)
    with _collecting(model, layers), torch.no_grad(), uncompiled():
        num_batches = 0
        for batch in batches:
            if not isinstance(batch, tuple):
                raise bad_kind("standing_statistics", "batches", "an iterable of tuples of arguments", batch)
            model(*batch)
            num_batches += 1
        if process_group is not None:
            num_batches = _pool(model, layers, num_batches, process_group)
        if num_batches == 0:
            rule = "an iterable of at least one tuple of arguments"
            remedy = "A generator that has been used up is empty."
            raise bad_value("standing_statistics", "batches", rule, batches, remedy)


def collects_statistics(model: nn.Module) -> bool:
    """Whether a model has a norm that takes part in :func:`standing_statistics`, which refuses one without.

    Args:
        model: Any module.

    Raises:
        TypeError: If ``model`` is no module.

    Example:
        >>> [collects_statistics(model) for model in (nn.BatchNorm2d(3), nn.GroupNorm(1, 3))]
        [True, False]
    """
    check_module("collects_statistics", "model", model)
    return bool(_collecting_norms(model))


def _collecting_norms(model: nn.Module) -> list[CollectsStatistics]:
    """The norms of a model whose statistics can be pooled."""
    layers: list[CollectsStatistics] = []
    for module in model.modules():
        if isinstance(module, CollectsStatistics):
            layers.append(module)
        elif isinstance(module, _BatchNorm) and module.running_mean is not None:
            layers.append(_TorchBatchNorm(module))
    return layers


class _TorchBatchNorm:
    """Lets a batch norm of torch collect: meanwhile it has another forward pass."""

    def __init__(self, norm: _BatchNorm) -> None:
        self.norm = norm
        self.replaced: Callable[..., Tensor] | None = None
        self.collected: Moments | None = None

    def start_collecting(self) -> None:
        self.collected, self.replaced = None, vars(self.norm).get("forward")
        vars(self.norm)["forward"] = self.forward

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        norm._check_input_dim(x)
        # With momentum 1 torch's kernel leaves the batch's statistics in the buffers that it is given.
        mean, variance = (torch.zeros_like(norm.get_buffer("running_mean")) for _ in range(2))
        y = F.batch_norm(x, mean, variance, norm.weight, norm.bias, True, 1.0, norm.eps)
        count = x.numel() // norm.num_features
        mean, variance = to_float64(mean), to_float64(variance)
        new = Moments(mean.new_tensor(count), mean, variance * (count - 1))
        self.collected = new if self.collected is None else self.collected.combine(new)
        return y

    def collected_row(self, like: Tensor) -> Tensor:
        if self.collected is None:
            return to_float64(torch.zeros(1 + 2 * self.norm.num_features, device=like.device))
        return self.collected.row()

    def collect_rows(self, rows: Tensor, like: Tensor) -> None:  # noqa: ARG002
        self.collected = Moments.of_rows(rows) if rows[:, 0].any() else None

    @torch.no_grad()
    def stop_collecting(self, *, store: bool) -> None:
        vars(self.norm).pop("forward", None)
        if self.replaced is not None:
            vars(self.norm)["forward"] = self.replaced
        if store and self.collected is not None:
            num_values, mean, centered_squares = self.collected
            for name, value in (("running_mean", mean), ("running_var", centered_squares / num_values)):
                self.norm.get_buffer(name).copy_(value)
        self.collected = None


def _pool(model: nn.Module, layers: Sequence[CollectsStatistics], num_batches: int, group: "dist.ProcessGroup") -> int:
    """Give all layers what all processes have collected; returns how many batches that were."""
    like = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    own = [layer.collected_row(like) for layer in layers]
    own.append(to_float64(torch.tensor([num_batches], device=like.device)))
    *rows, counts = gather_rows(torch.cat(own), group).split([len(row) for row in own], dim=1)
    for layer, collected in zip(layers, rows, strict=True):
        layer.collect_rows(collected, like)
    return int(counts.sum())


@contextmanager
def _collecting(model: nn.Module, layers: Sequence[CollectsStatistics]) -> Iterator[None]:
    """Put ``model`` in eval mode and let ``layers`` collect; store the result unless an exception ends the block."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for layer in layers:
            layer.start_collecting()
        yield
        for layer in layers:
            layer.stop_collecting(store=True)
    finally:
        for layer in layers:
            layer.stop_collecting(store=False)
        for module, training in modes.items():
            module.training = training
