"""Singular values of weights: spectral normalisation and what builds on it."""
