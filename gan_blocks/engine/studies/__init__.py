"""Tables of many trainings that a stop does not lose."""
