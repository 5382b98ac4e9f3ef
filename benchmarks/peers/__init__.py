"""Published code beside ours: it lies in folders of the user's, and none of it is here."""
