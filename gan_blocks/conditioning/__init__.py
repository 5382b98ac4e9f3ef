"""Class and latent information on its way into the generator and the discriminator."""
