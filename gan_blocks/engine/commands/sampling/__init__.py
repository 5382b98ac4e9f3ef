"""What ``gan-blocks sample`` consists of: the options that all drawings share, and paths through the latent space."""
