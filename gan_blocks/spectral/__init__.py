"""Singular values of weights: spectral normalization and what builds on it."""
