"""Model-agnostic helpers for training and sampling."""
