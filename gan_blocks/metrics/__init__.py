"""Measures of generators that no maintained library has."""
