"""Skip-z: the latent vector on its way to every block of a generator.

Tested in ``tests/conditioning/test_skip_z.py``.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from gan_blocks._checks import bad_value, check_sizes, check_vectors

__all__ = ["FullSkipZ", "HierarchicalSkipZ", "NoSkipZ", "SkipZ"]


class SkipZ(NamedTuple):
    """What a generator's layers are given of z and the class: one tensor for the stem, one for each block."""

    stem: Tensor
    """Input of the first linear layer, ``(batch, stem_features)``."""
    conditions: tuple[Tensor, ...]
    """Condition of each block in order, ``(batch, condition_dim)`` each."""


class _SkipZBase(nn.Module):
    """The sizes that every kind of skip-z has."""

    def __init__(self, latent_dim: int, embedding_dim: int, num_blocks: int) -> None:
        super().__init__()
        check_sizes(type(self).__name__, latent_dim=latent_dim, embedding_dim=embedding_dim, num_blocks=num_blocks)
        self.latent_dim = latent_dim
        self.embedding_dim = embedding_dim
        self.num_blocks = num_blocks

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"{self.latent_dim}, {self.embedding_dim}, num_blocks={self.num_blocks}"

    def _check_inputs(self, z: Tensor, embedding: Tensor) -> None:
        check_vectors(type(self).__name__, "z", z, self.latent_dim)
        check_vectors(type(self).__name__, "embedding", embedding, self.embedding_dim, batch=z.shape[0])


class FullSkipZ(_SkipZBase):
    r"""BigGAN-deep's skip-z: the first linear layer and every block see the whole z beside the class vector.

    .. math:: s = h_1 = \dots = h_B = [z, c]

    Args:
        latent_dim: Width of z, at least 1; the paper uses 128.
        embedding_dim: Width of the class vector c, at least 1; the paper uses 128.
        num_blocks: Number of blocks B, at least 1. All get the same tensor; the number is asked for so that both
            kinds of skip-z are built and used alike.

    Attributes:
        stem_features: Input width of the first linear layer, ``latent_dim + embedding_dim``.
        condition_dim: Width of a block's condition, ``latent_dim + embedding_dim``.

    Shape:
        - z: ``(batch, latent_dim)``
        - embedding: ``(batch, embedding_dim)``
        - returns: :class:`SkipZ` of one tensor ``(batch, latent_dim + embedding_dim)``, ``num_blocks + 1`` times

    Raises:
        ValueError: If a size is not positive, or an input has another shape.
        TypeError: If an input is no tensor.

    References:
        Brock et al. 2018, Appendix B, figure 16 and Tables 7 to 9.

    Example:
        >>> skip_z = FullSkipZ(128, 128, num_blocks=10)
        >>> parts = skip_z(torch.zeros(4, 128), torch.zeros(4, 128))
        >>> parts.stem.shape, len(parts.conditions), parts.conditions[0].shape
        (torch.Size([4, 256]), 10, torch.Size([4, 256]))
    """

    def __init__(self, latent_dim: int, embedding_dim: int, *, num_blocks: int) -> None:
        super().__init__(latent_dim, embedding_dim, num_blocks)
        self.stem_features = latent_dim + embedding_dim
        self.condition_dim = latent_dim + embedding_dim

    def forward(self, z: Tensor, embedding: Tensor) -> SkipZ:
        """Concatenate z and the class vector once for all."""
        self._check_inputs(z, embedding)
        condition = torch.cat([z, embedding], dim=1)
        return SkipZ(stem=condition, conditions=(condition,) * self.num_blocks)


class NoSkipZ(_SkipZBase):
    r"""The generator without skip-z: the first linear layer sees only z, the blocks only the class vector.

    .. math:: s = z, \qquad h_1 = \dots = h_B = c

    Args:
        latent_dim: Width of z, at least 1; the paper's baseline uses 128.
        embedding_dim: Width of the class vector c, at least 1; the paper uses 128.
        num_blocks: Number of blocks B, at least 1.

    Attributes:
        stem_features: Input width of the first linear layer, ``latent_dim``.
        condition_dim: Width of a block's condition, ``embedding_dim``.

    Shape:
        - z: ``(batch, latent_dim)``
        - embedding: ``(batch, embedding_dim)``
        - returns: :class:`SkipZ`, stem ``(batch, latent_dim)``, ``num_blocks`` conditions ``(batch, embedding_dim)``

    Raises:
        ValueError: If a size is not positive, or an input has another shape.
        TypeError: If an input is no tensor.

    References:
        Brock et al. 2018, Table 1, row 6: the shared embedding without skip-z.

    Example:
        >>> skip_z = NoSkipZ(128, 64, num_blocks=5)
        >>> parts = skip_z(torch.zeros(4, 128), torch.zeros(4, 64))
        >>> parts.stem.shape, len(parts.conditions), parts.conditions[0].shape
        (torch.Size([4, 128]), 5, torch.Size([4, 64]))
    """

    def __init__(self, latent_dim: int, embedding_dim: int, *, num_blocks: int) -> None:
        super().__init__(latent_dim, embedding_dim, num_blocks)
        self.stem_features = latent_dim
        self.condition_dim = embedding_dim

    def forward(self, z: Tensor, embedding: Tensor) -> SkipZ:
        """Give z to the stem and the class vector to the blocks."""
        self._check_inputs(z, embedding)
        return SkipZ(stem=z, conditions=(embedding,) * self.num_blocks)


class HierarchicalSkipZ(_SkipZBase):
    r"""BigGAN's skip-z: z is cut into equal chunks, one for the first linear layer and one for each block.

    .. math:: z = [z_0, z_1, \dots, z_B], \qquad s = z_0, \qquad h_i = [z_i, c]

    The first linear layer sees only chunk 0. Tables 4 to 6 of the paper print its input as 20 + 128, but the
    parameter count that the paper publishes for BigGAN-128, 70.4M, holds for 20 inputs; 148 would make it 73.6M.

    Args:
        latent_dim: Width of z, at least 1, a multiple of ``num_blocks + 1``; the paper uses 20 per chunk.
        embedding_dim: Width of the class vector c, at least 1; the paper uses 128.
        num_blocks: Number of blocks B, at least 1.

    Attributes:
        stem_features: Input width of the first linear layer, the chunk's.
        condition_dim: Width of a block's condition, the chunk's plus ``embedding_dim``.

    Shape:
        - z: ``(batch, latent_dim)``
        - embedding: ``(batch, embedding_dim)``
        - returns: :class:`SkipZ`, stem ``(batch, chunk)``, ``num_blocks`` conditions ``(batch, chunk + embedding_dim)``

    Raises:
        ValueError: If a size is not positive, z cannot be cut into equal chunks, or an input has another shape.
        TypeError: If an input is no tensor.

    References:
        Brock et al. 2018, section 3 and Appendix B, figure 15 and Tables 4 to 6.

    Example:
        >>> skip_z = HierarchicalSkipZ(120, 128, num_blocks=5)
        >>> parts = skip_z(torch.zeros(4, 120), torch.zeros(4, 128))
        >>> parts.stem.shape, len(parts.conditions), parts.conditions[0].shape
        (torch.Size([4, 20]), 5, torch.Size([4, 148]))
    """

    def __init__(self, latent_dim: int, embedding_dim: int, *, num_blocks: int) -> None:
        super().__init__(latent_dim, embedding_dim, num_blocks)
        num_chunks = num_blocks + 1
        if latent_dim % num_chunks:
            nearest = max(1, round(latent_dim / num_chunks)) * num_chunks
            rule = f"a multiple of num_blocks + 1 = {num_chunks}"
            raise bad_value("HierarchicalSkipZ", "latent_dim", rule, latent_dim, f"The nearest is {nearest}.")
        self.stem_features = latent_dim // num_chunks
        self.condition_dim = latent_dim // num_chunks + embedding_dim

    def forward(self, z: Tensor, embedding: Tensor) -> SkipZ:
        """Give chunk 0 to the stem and chunk i with the class vector to block i."""
        self._check_inputs(z, embedding)
        stem, *chunks = rearrange(z, "batch (chunk width) -> chunk batch width", chunk=self.num_blocks + 1).unbind()
        return SkipZ(stem=stem, conditions=tuple(torch.cat([chunk, embedding], dim=1) for chunk in chunks))
