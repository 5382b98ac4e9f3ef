"""Tables of the papers, each measured by many trainings."""
