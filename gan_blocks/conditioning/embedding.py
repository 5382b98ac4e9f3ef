"""The class embedding that every layer of a generator shares, and a discriminator's view of it.

Tested in ``tests/conditioning/test_embedding.py``.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_blocks._checks import bad_shape, check_classes, check_factories, check_labels, check_sizes
from gan_blocks.layers._placing import placed

__all__ = ["ProjectedEmbedding", "SharedEmbedding"]


class SharedEmbedding(nn.Module):
    r"""One table of class vectors that all conditional layers of a generator read.

    .. math:: c = E_y, \qquad E \in \mathbb{R}^{K \times d}

    A row of floating weights w in place of a label y gives :math:`c = \sum_k w_k E_k`: its class's vector where the row
    is one-hot, a point on the line between two classes where it holds 1 - t and t. So a generator that looks up its
    classes here takes mixtures of them wherever it takes labels, as interpolations between classes need.

    Each conditional BatchNorm projects :math:`c` to its own gains and biases, so that the classes cost one table
    instead of one per layer. Published code applies spectral normalization to the projections, not to this table, and
    excludes the table from orthogonal regularization; the paper says neither.

    The range of the labels is checked on the CPU only: elsewhere the check would stall the stream, and
    the device reports an index outside the table in its own way.

    Args:
        num_classes: Number of classes K, at least 1.
        embedding_dim: Width d of a class vector, at least 1; the paper uses 128.
        device: Device of the table.
        dtype: Dtype of the table.

    Attributes:
        weight: The table. It starts from N(0, 1), as ``torch.nn.Embedding`` does, drawn from torch's global
            generator; the paper's networks draw it again with :func:`gan_blocks.init_orthogonal_`.

    Shape:
        - y: ``(batch,)``, int64, values in ``[0, num_classes)``; or ``(batch, num_classes)``, floating, weights of any
          value
        - returns: ``(batch, embedding_dim)``

    Raises:
        ValueError: If a size is not positive, or ``y`` has another shape or a value outside its range.
        TypeError: If ``y`` is no tensor, or neither int64 nor floating.

    References:
        Brock et al. 2018, section 3, figures 8 and 9; Perez et al. 2018, "FiLM".

    Example:
        >>> embedding = SharedEmbedding(10, 128)
        >>> embedding(torch.tensor([3, 7])).shape
        torch.Size([2, 128])
        >>> halfway = torch.tensor([[0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0]])
        >>> torch.allclose(embedding(halfway), embedding(torch.tensor([3, 7])).mean(dim=0))
        True
    """

    class_tables = ("weight",)
    weight: nn.Parameter

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes("SharedEmbedding", num_classes=num_classes, embedding_dim=embedding_dim)
        self.num_classes = num_classes
        self.embedding_dim = embedding_dim
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Draw the table from N(0, 1), from ``generator`` or, without one, from torch's global generator."""
        nn.init.normal_(self.weight, generator=generator)

    def forward(self, y: Tensor) -> Tensor:
        """Look up the class vector of every label, or mix the class vectors by every row of weights."""
        check_classes("SharedEmbedding", "y", y, self.num_classes)
        return y.to(self.weight.dtype) @ self.weight if y.is_floating_point() else F.embedding(y, self.weight)

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{self.num_classes}, {self.embedding_dim}"


class ProjectedEmbedding(nn.Module):
    r"""Class vectors of a discriminator: a projection of the embedding that the generator has learned.

    .. math:: V_y = P\, E_y, \qquad E \in \mathbb{R}^{K \times d}, \quad P \in \mathbb{R}^{D \times d}

    In place of a table of its own it keeps a copy of the generator's, a buffer that :meth:`follow` renews, and only
    learns P. The paper says that D's table is replaced by a projection of G's embedding, "as is done in G's BatchNorm
    layers", and not which network's loss moves E; here it is G's. It found that this helps at first, scales poorly and
    is sensitive to the number of D's updates.

    Args:
        num_classes: Number of classes K, at least 1.
        embedding_dim: Width d of the generator's class vectors, at least 1.
        out_features: Width D of the discriminator's, at least 1.
        linear_layer: Factory of P, called as ``linear_layer(embedding_dim, out_features, bias=False)`` like
            ``nn.Linear``.
        device: Device of the table and of the projection.
        dtype: Dtype of the table and of the projection.

    Attributes:
        table: The copy of E, ``(num_classes, embedding_dim)``; zero until :meth:`follow` is called.
        projection: The layer that is P.

    Shape:
        - y: ``(batch,)``, int64, values in ``[0, num_classes)``
        - returns: ``(batch, out_features)``

    Raises:
        ValueError: If a size is not positive, or ``y`` has another shape or a value outside its range.
        TypeError: If ``y`` is not int64.

    References:
        Brock et al. 2018, Appendix H.

    Example:
        >>> shared, embedding = SharedEmbedding(10, 128), ProjectedEmbedding(10, 128, 64)
        >>> embedding.follow(shared)
        >>> embedding(torch.tensor([3, 7])).shape
        torch.Size([2, 64])
    """

    table: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        out_features: int,
        *,
        linear_layer: Callable[..., nn.Module] = nn.Linear,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_factories("ProjectedEmbedding", linear_layer=linear_layer)
        check_sizes(
            "ProjectedEmbedding", num_classes=num_classes, embedding_dim=embedding_dim, out_features=out_features
        )
        self.num_classes = num_classes
        self.register_buffer("table", torch.empty(num_classes, embedding_dim, device=device, dtype=dtype))
        self.projection = placed(linear_layer(embedding_dim, out_features, bias=False), device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the copy zero, as before :meth:`follow` is called; the projection has a method of its own."""
        nn.init.zeros_(self.table)

    def follow(self, embedding: SharedEmbedding) -> None:
        """Copy the generator's table as it is now; call it before each step of training.

        Raises:
            ValueError: If the tables differ in shape.
        """
        if embedding.weight.shape != self.table.shape:
            raise bad_shape("ProjectedEmbedding", "embedding.weight", str(tuple(self.table.shape)), embedding.weight)
        with torch.no_grad():
            self.table.copy_(embedding.weight)

    def forward(self, y: Tensor) -> Tensor:
        """Project the class vector of every label."""
        check_labels("ProjectedEmbedding", "y", y, self.num_classes)
        class_vectors: Tensor = self.projection(F.embedding(y, self.table))
        return class_vectors

    def extra_repr(self) -> str:
        """Name the sizes of the table."""
        return f"{self.num_classes}, {self.table.shape[1]}"
