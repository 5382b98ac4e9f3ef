"""Reusable GAN building blocks for PyTorch."""

from gan_blocks.losses.adversarial import hinge_discriminator_loss, hinge_generator_loss

__all__ = [
    "hinge_discriminator_loss",
    "hinge_generator_loss",
]

__version__ = "0.1.0"
