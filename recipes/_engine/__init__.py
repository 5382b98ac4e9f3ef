"""What all recipes share: data, training loop, checkpoints, console and report."""
