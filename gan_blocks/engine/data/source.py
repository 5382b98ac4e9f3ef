"""What ``--data`` names: a kind of source and, for most, a path; and the wording of what is wrong with it.

Tested in ``tests/engine/data/test_sources.py``.
"""

from dataclasses import dataclass
from pathlib import Path

from gan_blocks.engine.base.contents import is_special
from gan_blocks.engine.base.errors import UserError

__all__ = ["DataSource"]


@dataclass(frozen=True)
class DataSource:
    """One value of ``--data``, or of another option, split into the name of the kind and the path."""

    spec: str
    name: str
    path: Path | None
    option: str = "--data"

    def error(self, problem: str) -> UserError:
        """Word an error as one line that names the option and its value."""
        return UserError(f"{self.option} {self.spec}: {' '.join(problem.split())}")

    def existing_path(self) -> Path:
        """Return the path, which must be that of a file or a folder."""
        if self.path is None:
            raise self.error(f"the source {self.name} needs a path: --data {self.name}:PATH.")
        if not self.path.exists():
            raise self.error(f"there is no file or folder {self.path.absolute()}; check the path.")
        self.check_regular(self.path)
        return self.path

    def check_regular(self, path: Path) -> None:
        """Refuse a named pipe, a socket or a device, which may be read without an end."""
        if is_special(path):
            raise self.error(f"{path} is no regular file.")
