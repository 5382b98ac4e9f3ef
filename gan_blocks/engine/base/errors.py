"""The one exception for everything that a user of a command can cause and fix.

Tested in ``tests/engine/runs/test_folder.py``.
"""

__all__ = ["UserError"]


class UserError(Exception):
    """A problem that the user can fix; commands print its text as one line and exit with status 2."""
