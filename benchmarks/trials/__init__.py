"""Trials of what files, people and machines do to a run: thousands of them, drawn by a seed, run by hand."""
