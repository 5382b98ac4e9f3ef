"""Reusable GAN building blocks for PyTorch."""

from gan_blocks.conditioning.embedding import SharedEmbedding
from gan_blocks.conditioning.projection import ProjectionHead
from gan_blocks.conditioning.skip_z import FullSkipZ, HierarchicalSkipZ, SkipZ
from gan_blocks.losses.adversarial import hinge_discriminator_loss, hinge_generator_loss

__all__ = [
    "FullSkipZ",
    "HierarchicalSkipZ",
    "ProjectionHead",
    "SharedEmbedding",
    "SkipZ",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
]

__version__ = "0.1.0"
