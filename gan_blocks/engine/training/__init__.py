"""The training loop and the updates that a step consists of."""
