"""What a training step costs, and what its parts, other ways to take it and other checkouts cost beside it."""
