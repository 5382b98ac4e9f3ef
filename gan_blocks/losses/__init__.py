"""Losses and penalties of the generator and the discriminator."""
