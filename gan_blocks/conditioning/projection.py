"""The discriminator's heads: one that judges an image together with its class, and one that does not ask for it.

Tested in ``tests/conditioning/test_projection.py``.
"""

from collections.abc import Callable

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from gan_blocks._checks import bad_shape, check_classes, check_factories, check_sizes, check_vectors
from gan_blocks.layers._placing import placed

__all__ = ["ProjectionHead", "UnconditionalHead"]


class ProjectionHead(nn.Module):
    r"""Projection discriminator: a linear score plus the inner product of the features and a class vector.

    .. math:: D(h, y) = w^\top h + b + \langle V_y, h \rangle

    The features come pooled: the paper's networks sum them over all pixels, after a last ReLU.
    The range of the labels is checked on the CPU only, where that costs no synchronization.

    Args:
        in_features: Width of the pooled features h, at least 1.
        num_classes: Number of classes, at least 1.
        linear_layer: Factory of the linear score, called as ``linear_layer(in_features, 1)`` like ``nn.Linear``.
        embedding_layer: Factory of the table V, called as ``embedding_layer(num_classes, in_features)`` like
            ``nn.Embedding``; that of BigGAN's published code is spectrally normalized.
        device: Device of the linear score and of the table.
        dtype: Dtype of the linear score and of the table.

    Attributes:
        linear: The linear score, w and b.
        embedding: The table V.

    Shape:
        - h: ``(batch, in_features)``
        - y: ``(batch,)``, int64, values in ``[0, num_classes)``; or ``(batch, num_classes)``, floating, weights that
          mix classes, as mixup has them: the mixture of the class vectors is compared
        - returns: ``(batch,)``, raw logits, larger means more real

    Raises:
        ValueError: If a size is not positive, an input has another shape, or a label is outside its range.
        TypeError: If an input is no tensor, or ``y`` is neither int64 nor floating.

    References:
        Miyato and Koyama 2018, "cGANs with Projection Discriminator", equation 5; Brock et al. 2018, Appendix B.

    Example:
        >>> head = ProjectionHead(64, 10)
        >>> head(torch.zeros(4, 64), torch.tensor([0, 1, 2, 9])).shape
        torch.Size([4])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        linear_layer: Callable[[int, int], nn.Module] = nn.Linear,
        embedding_layer: Callable[[int, int], nn.Module] = nn.Embedding,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_factories("ProjectionHead", linear_layer=linear_layer, embedding_layer=embedding_layer)
        check_sizes("ProjectionHead", in_features=in_features, num_classes=num_classes)
        self.in_features = in_features
        self.num_classes = num_classes
        self.linear = placed(linear_layer(in_features, 1), device, dtype)
        self.embedding = placed(embedding_layer(num_classes, in_features), device, dtype)

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        """Score every sample under its label."""
        check_vectors("ProjectionHead", "h", h, self.in_features)
        check_classes("ProjectionHead", "y", y, self.num_classes)
        if y.shape[0] != h.shape[0]:
            raise bad_shape("ProjectionHead", "y", str((h.shape[0], *y.shape[1:])), y)
        score: Tensor = self.linear(h)
        if y.is_floating_point():
            table: Tensor = self.embedding(torch.arange(self.num_classes, device=y.device))
            class_vector = y.to(table.dtype) @ table
        else:
            class_vector = self.embedding(y)
        # Under autocast a matrix product would round to bfloat16; the product of the elements does not.
        match = reduce(class_vector * h, "batch features -> batch", "sum")
        return rearrange(score, "batch 1 -> batch") + match


class UnconditionalHead(nn.Module):
    r"""A linear score of the features, for images without classes.

    .. math:: D(h) = w^\top h + b

    This is :class:`ProjectionHead` without its class vectors.

    Args:
        in_features: Width of the pooled features h, at least 1.
        linear_layer: Factory of the linear score, called as ``linear_layer(in_features, 1)`` like ``nn.Linear``.
        device: Device of the linear score.
        dtype: Dtype of the linear score.

    Attributes:
        linear: The linear score, w and b.

    Shape:
        - h: ``(batch, in_features)``
        - returns: ``(batch,)``, raw logits, larger means more real

    Raises:
        ValueError: If ``in_features`` is not positive, or ``h`` has another shape.
        TypeError: If ``h`` is no tensor.

    References:
        Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks".

    Example:
        >>> head = UnconditionalHead(64)
        >>> head(torch.zeros(4, 64)).shape
        torch.Size([4])
    """

    def __init__(
        self,
        in_features: int,
        *,
        linear_layer: Callable[[int, int], nn.Module] = nn.Linear,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_factories("UnconditionalHead", linear_layer=linear_layer)
        check_sizes("UnconditionalHead", in_features=in_features)
        self.in_features = in_features
        self.linear = placed(linear_layer(in_features, 1), device, dtype)

    def forward(self, h: Tensor) -> Tensor:
        """Score every sample."""
        check_vectors("UnconditionalHead", "h", h, self.in_features)
        score: Tensor = self.linear(h)
        return rearrange(score, "batch 1 -> batch")
