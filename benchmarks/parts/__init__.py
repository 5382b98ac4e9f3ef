"""What single parts of the library cost."""
