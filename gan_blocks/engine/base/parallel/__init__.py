"""Several processes and threads: how they find each other, what they add up, and pieces of work side by side."""
