"""What ``--data`` names: a source and, for most, a path; and the wording of what is wrong with it.

Tested in ``tests/recipes/test_data.py``.
"""

# ruff: noqa: PTH111, PTH112, PTH113, PTH118 - pathlib's tests raise for users that do not exist and names that are too long

from dataclasses import dataclass
from os.path import expanduser, isdir, isfile, join
from pathlib import Path

from recipes._engine.errors import UserError

__all__ = ["DataSource", "parse_source"]

# The sources by the path that follows them.
_WITHOUT_PATH = ("mnist5k", "stacked-mnist5k", "fashion-mnist")
_WITH_PATH = ("fashion-mnist", "npz", "folder", "shards", "cifar10")
_CHOICES = (
    "mnist5k, stacked-mnist5k, fashion-mnist, fashion-mnist:PATH, npz:PATH, folder:PATH, shards:PATH, cifar10:PATH"
)


@dataclass(frozen=True)
class DataSource:
    """One value of ``--data``, or of another option, split into the name of the source and the path."""

    spec: str
    name: str
    path: Path | None
    option: str = "--data"

    def error(self, problem: str) -> UserError:
        """Word an error as one line that names the option and its value."""
        return UserError(f"{self.option} {self.spec}: {' '.join(problem.split())}")

    def existing_path(self) -> Path:
        """Return the path, which must exist."""
        if self.path is None:
            raise self.error(f"the source {self.name} needs a path: --data {self.name}:PATH.")
        if not self.path.exists():
            raise self.error(f"there is no file or folder {self.path.absolute()}; check the path.")
        return self.path


def parse_source(spec: str) -> DataSource:
    """Split ``NAME`` or ``NAME:PATH``.

    Args:
        spec: The value of ``--data``.

    Returns:
        The source; its path is not looked at yet, but for ``~``, which becomes the home folder.

    Raises:
        UserError: If the source is unknown, or has a path that it does not take, or lacks one that it needs.
    """
    name, colon, path = spec.partition(":")
    source = DataSource(spec, name, Path(expanduser(path)) if path else None)
    if name not in _WITHOUT_PATH + _WITH_PATH:
        raise source.error(f"unknown source; choose one of {_CHOICES}.{_guess(spec)}")
    if colon and name not in _WITH_PATH:
        raise source.error(f"the source {name} takes no path: --data {name}.")
    if not path and (colon or name not in _WITHOUT_PATH):
        raise source.error(f"the source {name} needs a path: --data {name}:PATH.")
    return source


def _guess(spec: str) -> str:
    path = expanduser(spec)
    if isfile(join(path, "index.json")):
        return f" For a store that recipes.prepare wrote, write --data shards:{spec}."
    if isdir(path):
        return f" For a folder with one sub-folder a class write --data folder:{spec}."
    if isfile(path):
        return f" For a file of arrays write --data npz:{spec}."
    return ""
