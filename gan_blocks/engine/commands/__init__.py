"""The commands that work on any recipe and run."""
