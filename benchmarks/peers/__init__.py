"""Benchmarks against published code, which you check out yourself."""
