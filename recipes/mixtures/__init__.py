"""Mixtures of Gaussians in the plane: small GANs that train side by side."""
