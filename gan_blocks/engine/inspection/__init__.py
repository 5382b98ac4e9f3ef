"""What networks are made of and what a step costs, without computing anything."""
