"""What a recipe is: its Config, options, state and batches, and the contract between it and the engine."""
