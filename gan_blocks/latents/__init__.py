"""What the latent vector z is drawn from."""
