"""What a command reads from whoever typed it, and what it says: options, help, progress."""
