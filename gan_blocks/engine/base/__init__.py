"""What everything else stands on: errors, files, randomness, threads and processes, the command line."""
