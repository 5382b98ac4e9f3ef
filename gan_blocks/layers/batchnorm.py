"""Batch normalization by running, batch or standing statistics, in one process or across several.

Tested in ``tests/layers/test_batchnorm.py`` and ``tests/layers/test_cross_replica_batchnorm.py``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from gan_blocks._checks import bad_dtype, bad_shape, bad_value, check_feature_map, check_positive, check_sizes
from gan_blocks._precision import to_float64, wide_dtype
from gan_blocks.layers._modulation import is_reverse_mode, modulate
from gan_blocks.layers._moments import GroupReference, Moments, own_moments, shared_moments, sharing_group

__all__ = ["CrossReplicaBatchNorm2d"]

Statistics = Literal["running", "batch"]


class CrossReplicaBatchNorm2d(nn.Module):
    r"""Normalize every channel to zero mean and unit variance, then scale and shift it.

    .. math:: y_{nchw} = \gamma_c \frac{x_{nchw} - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}} + \beta_c

    In train mode, mean and variance (divided by the count) are those of the batch at hand, and the gradient flows
    through them. With ``statistics="running"`` they also move the buffers ``running_mean`` and ``running_var`` by

    .. math:: \text{running} \leftarrow (1 - \text{momentum})\,\text{running} + \text{momentum}\,\text{batch}

    where, as in :class:`torch.nn.BatchNorm2d`, the variance entering the buffer is the unbiased one.

    In eval mode nothing changes, and mean and variance are

    - with ``statistics="running"``: the buffers;
    - with ``statistics="batch"``: those of the batch at hand. Such a layer has no buffers, and its output depends on
      the rest of the batch;
    - after :func:`standing_statistics`, whatever the argument: the pooled ones, stored in the buffers. A layer of
      ``statistics="batch"`` has buffers from then on. They are part of its state_dict, and loading such a state_dict
      into a fresh layer makes it evaluate with them, too. Later training leaves them as they are, whereas
      ``statistics="running"`` moves them on. ``torch.optim.swa_utils.update_bn`` looks for torch's own classes and
      does not calibrate this one: call :func:`standing_statistics`, which pools both.

    Statistics are computed in float32 for inputs of lower precision. In float64 on the CPU they are added up in pairs,
    unless compiled: more exact than torch's kernel, and slower. The memory format of the input is kept.

    Where ``torch.distributed`` is initialized, the batch of train mode is that of all processes together, and so is the
    gradient through its statistics; the running ones are the same bits in all. The batches may differ in size, and each
    holds at least one value per channel. This costs one collective operation forward and one backward, of three and
    two numbers per channel, so every process has to make each call in train mode and its backward pass. Eval mode and
    the collection of standing statistics stay within a process: one of them may evaluate by itself.

    Args:
        num_features: Number of channels, at least 1.
        eps: Added to the variance, greater than 0.
        momentum: Weight of the newest batch in the running statistics, from 0 (frozen) to 1 (only the last batch).
        affine: Whether there are a learned gain, starting at 1, and bias, starting at 0.
        statistics: What eval mode normalizes by: ``"running"`` or ``"batch"``.
        process_group: The processes whose batches are normalized as one in train mode; None takes all of them. A group
            of only this process keeps to its own batch.
        device: Where parameters and buffers are created.
        dtype: Their dtype.

    Shape:
        - x: ``(batch, num_features, height, width)``; more than one value per channel where the batch's own
          statistics are used
        - returns: same as ``x``

    Raises:
        ValueError: If an argument is out of its range, or the input is not of the shape above.
        TypeError: If the layer is in another dtype than the input, except for float32 with an input of lower precision.

    References:
        Ioffe and Szegedy 2015, "Batch Normalization"; Brock et al. 2018, Appendix C (epsilon) and C.1 (statistics).

    Example:
        >>> norm = CrossReplicaBatchNorm2d(1)
        >>> x = torch.tensor([-100.0, 300.0]).reshape(2, 1, 1, 1)
        >>> norm(x).round().flatten().tolist()
        [-1.0, 1.0]
        >>> norm.running_mean.item()  # 0.9 * 0 + 0.1 * 100
        10.0
    """

    looks_across_samples = True

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-4,
        momentum: float = 0.1,
        affine: bool = True,
        statistics: Statistics = "running",
        process_group: "dist.ProcessGroup | None" = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes("CrossReplicaBatchNorm2d", num_features=num_features)
        check_positive("CrossReplicaBatchNorm2d", eps=eps)
        if momentum is None or not 0 <= momentum <= 1:  # torch's None is an average over all batches
            raise bad_value("CrossReplicaBatchNorm2d", "momentum", "from 0 to 1", momentum)
        if statistics not in get_args(Statistics):
            raise bad_value("CrossReplicaBatchNorm2d", "statistics", "'running' or 'batch'", statistics)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.statistics = statistics
        self._group = GroupReference(process_group)
        for name in ("weight", "bias"):
            values = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) if affine else None
            self.register_parameter(name, values)
        for name in ("running_mean", "running_var"):
            running = torch.empty(num_features, device=device, dtype=dtype) if statistics == "running" else None
            self.register_buffer(name, running)
        self._collecting = False
        self._collected: Moments | None = None
        self._collected_like = torch.empty(0)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set gain and bias, and the statistics where there are any, to the identity."""
        for ones in (self.weight, self.running_var):
            if ones is not None:
                nn.init.ones_(ones)
        for zeros in (self.bias, self.running_mean):
            if zeros is not None:
                nn.init.zeros_(zeros)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x``."""
        check_feature_map("CrossReplicaBatchNorm2d", x, self.num_features)
        mean, variance = self.running_mean, self.running_var
        stored = self.weight if mean is None else mean
        # Torch normalizes by statistics of the map's own dtype, or by those of float32 where the map's is narrower.
        narrow = mean is not None and mean.dtype not in (x.dtype, wide_dtype(x))
        if stored is not None and (narrow or wide_dtype(x) != wide_dtype(stored)):
            rule = "torch.float32 or narrower" if stored.dtype == torch.float32 else str(stored.dtype)
            raise bad_dtype("CrossReplicaBatchNorm2d", "x", f"{rule}, like the layer", x)
        if not self._collecting and not self.training and mean is not None:
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        group = self._sharing_group()
        if group is not None and x.numel() > 0:
            return self._normalize_as_formula(x, group)
        if x.numel() <= x.shape[1]:
            rule = f"(batch, {self.num_features}, height, width) with more than one value per channel"
            raise bad_shape("CrossReplicaBatchNorm2d", "x", rule, x, "A single value has no variance to normalize by.")
        if not self._collecting and _kernel_loses_digits(x):
            return self._normalize_as_formula(x, None)
        if self.training and not self._collecting and self.statistics == "running":
            return F.batch_norm(x, mean, variance, self.weight, self.bias, True, self.momentum, self.eps)
        return self._normalize_by_batch(x)

    @property
    def process_group(self) -> "dist.ProcessGroup | None":
        """The processes whose batches are normalized as one in train mode; None stands for all of them."""
        return self._group.group

    def start_collecting(self) -> None:
        """Normalize by the batch at hand, and pool the statistics of all batches, until :meth:`stop_collecting`.

        For :func:`standing_statistics`; train and eval mode make no difference meanwhile.
        """
        self._collecting = True
        self._collected = None

    def collected_row(self, like: Tensor) -> Tensor:
        """What has been collected as one float64 vector on the device of ``like``, zeros where no batch has come."""
        if self._collected is None:
            return to_float64(torch.zeros(1 + 2 * self.num_features, device=like.device))
        return self._collected.row()

    def collect_rows(self, rows: Tensor, like: Tensor) -> None:
        """Take the collections of all processes, one :meth:`collected_row` each, for what has been collected here."""
        if self._collected is None:
            self._collected_like = like.new_empty(0, dtype=wide_dtype(like))
        self._collected = Moments.of_rows(rows) if rows[:, 0].any() else None

    def stop_collecting(self, *, store: bool) -> None:
        """End what :meth:`start_collecting` began.

        Args:
            store: Make the pooled mean and variance (centered squares divided by the count: what train mode would
                normalize the union of all batches by) the ones to evaluate with. Nothing is stored when False, or
                when no batch has come.
        """
        if store and self._collected is not None:
            num_values, mean, centered_squares = self._collected
            self._create_missing_buffers(self._collected_like.device, self._collected_like.dtype)
            self.set_statistics(mean, centered_squares / num_values)
        self._collecting = False
        self._collected = None

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Make these the statistics to evaluate with, whatever the layer's ``statistics``.

        A layer that has had neither statistics nor parameters takes over their dtype and device.

        Args:
            mean: Mean of each channel, ``(num_features,)``.
            variance: Variance of each channel, ``(num_features,)``.

        Raises:
            ValueError: If they have another shape.
        """
        for name, value in (("mean", mean), ("variance", variance)):
            if value.shape != (self.num_features,):
                raise bad_shape("CrossReplicaBatchNorm2d", name, f"({self.num_features},)", value)
        self._create_missing_buffers(mean.device, mean.dtype)
        for buffer, value in ((self.running_mean, mean), (self.running_var, variance)):
            if buffer is not None:
                buffer.copy_(value)

    @contextmanager
    def held_statistics(self) -> Iterator[None]:
        """Inside, no forward pass moves the running statistics, though it calls the same operators."""
        momentum = self.momentum
        self.momentum = 0.0  # they move by nothing
        try:
            yield
        finally:
            self.momentum = momentum

    @property
    def exchanged_floats(self) -> tuple[int, int]:
        """How many numbers each process contributes in a forward and in a backward pass of a batch that is spread.

        Count, mean and centered squares forward, two sums a channel backward.
        """
        return 1 + 2 * self.num_features, 2 * self.num_features

    def extra_repr(self) -> str:
        """Return the arguments as ``repr`` shows them."""
        names = ("eps", "momentum", "affine", "statistics")
        return ", ".join([str(self.num_features), *(f"{name}={getattr(self, name)!r}" for name in names)])

    def _sharing_group(self) -> "dist.ProcessGroup | None":
        """The group with which statistics are shared in the present mode, or None where they are this process's own."""
        return sharing_group(self.process_group) if self.training and not self._collecting else None

    def _share_moments(self, x: Tensor, group: "dist.ProcessGroup | None") -> tuple[Tensor, Tensor]:
        """Mean and biased variance over all processes of ``group``, as constants; the running statistics move."""
        with torch.no_grad():
            if group is None:
                count: Tensor | int = x.numel() // self.num_features
                mean, variance = own_moments(x)
            else:
                count, mean, variance = shared_moments(x, group)
            if self.statistics == "running":
                for running, new in ((self.running_mean, mean), (self.running_var, variance * (count / (count - 1)))):
                    if running is not None:
                        running.lerp_(new.to(running.dtype), self.momentum)
        return mean, variance

    def _normalize_as_formula(self, x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
        mean, variance = self._share_moments(x, group)
        gain, bias = (
            mean.new_full((1,), default).expand(len(x), len(mean)) if values is None else values.expand(len(x), -1)
            for values, default in ((self.weight, 1.0), (self.bias, 0.0))
        )
        return modulate(x, mean, variance, gain, bias, eps=self.eps, of_batch=True, group=group).to(x.dtype)

    def _normalize_by_batch(self, x: Tensor) -> Tensor:
        # With momentum 1 torch's kernel leaves the batch's statistics in its running buffers: they cost no extra pass
        # over x. Buffers of float32 also keep it from rounding the mean to the 8 bits of a bfloat16 input.
        dtype = wide_dtype(x)
        mean, variance = (torch.zeros(self.num_features, device=x.device, dtype=dtype) for _ in range(2))
        gain, bias = (None if p is None else p.to(dtype) for p in (self.weight, self.bias))
        y = F.batch_norm(x, mean, variance, gain, bias, True, 1.0, self.eps)
        if self._collecting:
            count = x.numel() // self.num_features
            self._collected_like = mean.new_empty(0)
            mean, variance = to_float64(mean), to_float64(variance)
            new = Moments(mean.new_tensor(count), mean, variance * (count - 1))
            self._collected = new if self._collected is None else self._collected.combine(new)
        return y

    def _create_missing_buffers(self, device: torch.device, dtype: torch.dtype) -> None:
        if self.running_mean is None:
            like = torch.empty(0, device=device, dtype=dtype) if self.weight is None else self.weight.detach()
            self.running_mean, self.running_var = (like.new_empty(self.num_features) for _ in range(2))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = [state_dict[key] for key in (prefix + "running_mean", prefix + "running_var") if key in state_dict]
        if saved:
            self._create_missing_buffers(saved[0].device, saved[0].dtype)
        # Torch's batch norms count their batches, which ours have no use for.
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _kernel_loses_digits(x: Tensor) -> bool:
    """Whether torch's kernel would leave a gradient whose sum over a channel, zero in exact arithmetic, is not small.

    On the CPU it adds up one value after the other, in float64 for float32 but not in anything wider for float64. What
    is left of zero is all the gradient that a convolution's bias in front has, and Adam makes steps of it.
    """
    double = x.device.type == "cpu" and x.dtype == torch.float64
    return double and not torch.compiler.is_compiling() and is_reverse_mode()
