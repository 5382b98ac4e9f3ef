"""What metrics can tell, and what they cost."""
