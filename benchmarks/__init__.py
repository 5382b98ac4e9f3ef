"""Benchmarks: scripts that measure speed or reproduce a paper's table, run by ``make bench`` or one at a time."""
