"""Measures of generators: of their images, and of what any network makes of these, features or predictions."""
