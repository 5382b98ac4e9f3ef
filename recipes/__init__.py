"""Recipes: the systems of the papers, assembled from the public names of gan_blocks."""
