"""One tensor operation each."""
