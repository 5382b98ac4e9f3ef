"""Scores of features: each in a file, beside that of other real images, with counts and an interval."""
