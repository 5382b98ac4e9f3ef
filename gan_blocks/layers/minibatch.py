"""Statistics across the samples of a batch, for discriminators that are to notice a lack of variation.

Tested in ``tests/layers/test_minibatch.py``.
"""

import warnings
from collections.abc import Callable

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from gan_blocks._checks import (
    bad_shape,
    check_factories,
    check_positive,
    check_real_floating,
    check_sizes,
    check_vectors,
)
from gan_blocks._precision import wide_dtype
from gan_blocks.layers._placing import placed

__all__ = ["MinibatchDiscrimination", "MinibatchStdDev", "minibatch_stddev"]


def minibatch_stddev(x: Tensor, *, group_size: int | None = None, eps: float = 1e-8) -> Tensor:
    r"""Measure how much the samples of a batch differ: one number, or one for each group of samples, as a feature map.

    With ``group_size`` the batch is split into M groups by a stride: sample i belongs to group i mod M, with samples
    i + M, i + 2M, ... A group has the largest size that divides the batch and is at most ``group_size``; a sample that
    is alone in its group sees :math:`\sqrt\epsilon`. The number of a group S, or of the whole batch, is the standard
    deviation of each feature at each pixel, averaged:

    .. math:: s = \frac{1}{CHW} \sum_{c,h,w} \sqrt{\frac{1}{|S|} \sum_{i \in S} (x_{ichw} - \mu_{chw})^2 + \epsilon},
        \qquad \mu_{chw} = \frac{1}{|S|} \sum_{i \in S} x_{ichw}

    Real and generated images must be judged in batches of their own: in a mixed batch the number is one of the mixture.

    Args:
        x: Feature map or vectors of any floating dtype. The statistics are taken in float32 or wider, and rounded to
            its dtype.
        group_size: Largest size of a group, at least 1; None takes the whole batch, as the paper does. Groups of 4 are
            those of its code's later settings, and serve where batches of different sizes are to look alike.
        eps: Added to each variance, inside the root; greater than 0.

    Returns:
        A map that is constant over the pixels of a sample and equal for all samples of a group.

    Shape:
        - x: ``(batch, channels, ...)`` with at least one element, in networks of images
          ``(batch, channels, height, width)``
        - returns: ``(batch, 1, ...)``

    Raises:
        ValueError: If ``x`` is not of that shape, or ``group_size`` or ``eps`` is not greater than 0.
        TypeError: If ``x`` is not of a real floating dtype.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 3; the groups are those of its published code.

    Example:
        >>> x = torch.tensor([0.0, 10.0, 2.0, 14.0]).reshape(4, 1, 1, 1)  # groups {0, 2} and {10, 14}
        >>> minibatch_stddev(x, group_size=2).flatten().tolist()
        [1.0, 2.0, 1.0, 2.0]
    """
    _check_stddev("minibatch_stddev", group_size, eps)
    if x.dim() < 2 or x.numel() == 0:
        raise bad_shape("minibatch_stddev", "x", "(batch, channels, ...) with at least one element", x)
    check_real_floating("minibatch_stddev", "x", x)
    members = _members(len(x), group_size)
    # "(group member)" would be the contiguous groups of a well-known port: neighbors instead of strides.
    grouped = rearrange(x.to(wide_dtype(x)), "(member group) ... -> member group ...", member=members)
    deviation = (grouped.var(dim=0, correction=0) + eps).sqrt()
    value = reduce(deviation, "group ... -> group", "mean").to(x.dtype)
    maps = value.reshape(1, -1, *[1] * (x.dim() - 1)).expand(members, -1, 1, *x.shape[2:])
    return rearrange(maps, "member group ... -> (member group) ...")


def _check_stddev(owner: str, group_size: int | None, eps: float) -> None:
    check_positive(owner, eps=eps)
    if group_size is not None:
        check_sizes(owner, group_size=group_size)


def _members(batch: int, group_size: int | None) -> int:
    """How many samples each group of a batch has."""
    largest = batch if group_size is None else min(group_size, batch)
    return max(size for size in range(1, largest + 1) if batch % size == 0)


class MinibatchStdDev(nn.Module):
    r"""Append the map of :func:`minibatch_stddev` to a feature map; no parameters, the same in train and eval mode.

    Its place is toward the end of a discriminator, in ProGAN before the last 3x3 convolution, at 4x4 pixels.

    With ``group_size``, a batch that has no divisor up to it, such as 5 or 7 with groups of 4, leaves each sample
    alone: the map is a constant, and D learns nothing of variety. In training mode that is refused, but for a batch
    that is smaller than one before it, such as the last one of an epoch, about which there is one warning.

    Args:
        group_size: Largest number of samples that are compared, at least 1; None compares the whole batch.
        eps: Added to each variance, inside the root; greater than 0.

    Shape:
        - x: ``(batch, channels, ...)``
        - returns: ``(batch, channels + 1, ...)``

    Raises:
        ValueError: If ``group_size`` or ``eps`` is not greater than 0, the input has another shape, or a batch in
            training mode leaves each sample alone in its group.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 3 and Table 2.

    Example:
        >>> MinibatchStdDev()(torch.randn(8, 512, 4, 4)).shape
        torch.Size([8, 513, 4, 4])
    """

    looks_across_samples = True

    def __init__(self, *, group_size: int | None = None, eps: float = 1e-8) -> None:
        super().__init__()
        _check_stddev("MinibatchStdDev", group_size, eps)
        self.group_size = group_size
        self.eps = eps
        self._largest_batch, self._warned = 0, False

    def forward(self, x: Tensor) -> Tensor:
        """Append the map."""
        if self.training and self.group_size is not None and not torch.compiler.is_compiling():
            self._check_groups(len(x), self.group_size)
        return torch.cat([x, minibatch_stddev(x, group_size=self.group_size, eps=self.eps)], dim=1)

    def _check_groups(self, batch: int, group_size: int) -> None:
        if batch > 0 and group_size > 1 and _members(batch, group_size) == 1:
            problem = f"a batch of {batch} has no divisor from 2 to group_size={group_size}: each sample is alone"
            if batch >= self._largest_batch:
                raise ValueError(f"MinibatchStdDev: {problem}. Take another batch size, or group_size=None.")
            if not self._warned:
                self._warned = True
                warnings.warn(f"MinibatchStdDev: {problem} in it. Drop a last batch that is short.", stacklevel=3)
        self._largest_batch = max(self._largest_batch, batch)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"group_size={self.group_size}, eps={self.eps}"


class MinibatchDiscrimination(nn.Module):
    r"""Append learned distances of each sample to all samples of the batch to its features.

    .. math:: M_i = f_i T \in \mathbb{R}^{B \times C}, \qquad
        o_{ib} = \sum_j \exp\bigl(-\lVert M_{ib} - M_{jb} \rVert_1\bigr)

    The sum includes the sample itself, which adds 1. The paper's experiment with ProGAN (row e* of its Table 1) says
    nothing about sizes; the default ones are those of Salimans' published code.

    Args:
        in_features: Size A of the features f, at least 1.
        num_kernels: Number B of statistics per sample, at least 1.
        kernel_dim: Size C of the vectors that are compared, at least 1.
        linear_layer: Factory of the projection T, called as ``linear_layer(in_features, num_kernels * kernel_dim,
            bias=False)`` like ``nn.Linear``.
        device: Device of the projection.
        dtype: Dtype of the projection.

    Shape:
        - f: ``(batch, in_features)``
        - returns: ``(batch, in_features + num_kernels)``

    Raises:
        ValueError: If a size is not positive, or the input has another shape.

    References:
        Salimans et al. 2016, "Improved Techniques for Training GANs", section 3.2.

    Example:
        >>> MinibatchDiscrimination(512)(torch.randn(16, 512)).shape
        torch.Size([16, 612])
    """

    looks_across_samples = True

    def __init__(
        self,
        in_features: int,
        *,
        num_kernels: int = 100,
        kernel_dim: int = 5,
        linear_layer: Callable[..., nn.Module] = nn.Linear,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        owner = "MinibatchDiscrimination"
        check_factories(owner, linear_layer=linear_layer)
        check_sizes(owner, in_features=in_features, num_kernels=num_kernels, kernel_dim=kernel_dim)
        self.in_features = in_features
        self.num_kernels = num_kernels
        self.kernel_dim = kernel_dim
        self.projection = placed(linear_layer(in_features, num_kernels * kernel_dim, bias=False), device, dtype)

    def forward(self, f: Tensor) -> Tensor:
        """Append the statistics."""
        check_vectors("MinibatchDiscrimination", "f", f, self.in_features)
        vectors: Tensor = self.projection(f)
        m = rearrange(vectors, "batch (kernel dim) -> batch kernel dim", kernel=self.num_kernels)
        # Written out, because the derivative of torch.cdist has none, and gradient penalties need it.
        distance = reduce((m[:, None] - m[None]).abs(), "i j kernel dim -> i j kernel", "sum")
        closeness = reduce((-distance).exp(), "i j kernel -> i kernel", "sum")
        return torch.cat([f, closeness.to(f.dtype)], dim=1)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.in_features}, num_kernels={self.num_kernels}, kernel_dim={self.kernel_dim}"
