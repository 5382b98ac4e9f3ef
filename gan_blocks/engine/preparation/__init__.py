"""Decoding, cropping and resampling images into a store, once."""
