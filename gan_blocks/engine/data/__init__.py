"""Real images: the sources that ``--data`` names, and the sets of labeled images that they become."""
