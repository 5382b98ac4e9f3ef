"""The one exception for everything that a user of a command can cause and mend."""

__all__ = ["UserError"]


class UserError(Exception):
    """A problem that the user can mend; commands print its text as one line and exit with status 2."""
