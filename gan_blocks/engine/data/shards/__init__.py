"""Stores of prepared images: their format, how they are read and written."""
