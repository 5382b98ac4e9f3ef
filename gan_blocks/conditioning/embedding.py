"""The class embedding that every layer of a generator shares.

Tested in ``tests/conditioning/test_embedding.py``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_blocks._checks import check_classes, check_positive

__all__ = ["SharedEmbedding"]


class SharedEmbedding(nn.Module):
    r"""One table of class vectors that all conditional layers of a generator read.

    .. math:: c = E_y, \qquad E \in \mathbb{R}^{K \times d}

    A row of floating weights w in place of a label y gives :math:`c = \sum_k w_k E_k`: its class's vector where the row
    is one-hot, a point on the line between two classes where it holds 1 - t and t. So a generator that looks up its
    classes here takes mixtures of them wherever it takes labels, as interpolations between classes need.

    Each conditional BatchNorm projects :math:`c` to its own gains and biases, so that the classes cost one table
    instead of one per layer. The paper applies spectral normalisation to the projections, not to this table, and
    excludes the table from orthogonal regularisation.

    The range of the labels is checked on the CPU only: elsewhere the check would stall the stream, and
    the device reports an index outside the table in its own way.

    Args:
        num_classes: Number of classes K, at least 1.
        embedding_dim: Width d of a class vector, at least 1; the paper uses 128.
        device: Device of the table.
        dtype: Dtype of the table.

    Attributes:
        weight: The table. It starts from N(0, 1), as ``torch.nn.Embedding`` does, drawn from torch's global
            generator; the paper's networks draw it again with :func:`gan_blocks.orthogonal_`.

    Shape:
        - y: ``(batch,)``, int64, values in ``[0, num_classes)``; or ``(batch, num_classes)``, floating, weights of any
          value in the table's dtype
        - returns: ``(batch, embedding_dim)``

    Raises:
        ValueError: If a size is not positive, or ``y`` has another shape or a value outside its range.
        TypeError: If ``y`` is neither int64 nor floating.

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
        check_positive("SharedEmbedding", num_classes=num_classes, embedding_dim=embedding_dim)
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
        return y @ self.weight if y.is_floating_point() else F.embedding(y, self.weight)

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{self.num_classes}, {self.embedding_dim}"
