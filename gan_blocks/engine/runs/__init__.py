"""The folder of a run: Config, log, checkpoints, weights, report."""
