"""Measuring samples against real images."""
