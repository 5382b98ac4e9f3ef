"""The table of data sources, and what is read by it.

Tested in ``tests/engine/data/test_sources.py``.
"""

from os.path import expanduser  # pathlib's raises for users that do not exist
from pathlib import Path

from gan_blocks.engine.data.cifar10 import CIFAR10
from gan_blocks.engine.data.digits import FASHION_MNIST, MNIST5K
from gan_blocks.engine.data.folder import FOLDER
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.npz import NPZ, advice_on
from gan_blocks.engine.data.shards.reader import SHARDS
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import ReadRequest, SourceKind
from gan_blocks.engine.data.stacked import STACKED_MNIST5K

__all__ = ["SOURCES", "kind_of", "parse_source", "read_source", "source_choices"]

SOURCES: dict[str, SourceKind] = {
    kind.name: kind for kind in (MNIST5K, STACKED_MNIST5K, FASHION_MNIST, CIFAR10, SHARDS, NPZ, FOLDER)
}
"""What ``--data`` can name, in the order of the help."""


def source_choices() -> str:
    """All forms of ``--data``, for help and errors."""
    return ", ".join(spelling for kind in SOURCES.values() for spelling in kind.spellings())


def kind_of(source: DataSource) -> SourceKind:
    """The table's entry of a source.

    Raises:
        UserError: If there is none.
    """
    if source.name not in SOURCES:
        raise source.error(f"unknown source; choose one of {source_choices()}.{_guess(source.spec)}")
    return SOURCES[source.name]


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
    source = DataSource(spec, name, Path(expanduser(path)) if path else None)  # noqa: PTH111
    kind = kind_of(source)
    if colon and kind.path == "none":
        raise source.error(f"the source {name} takes no path: --data {name}.")
    if not path and (colon or kind.path == "required"):
        raise source.error(f"the source {name} needs a path: --data {name}:PATH.")
    return source


def read_source(source: DataSource, request: ReadRequest) -> ImageSet:
    """Read a source without asking whether its classes suit any network; see ``load_images``.

    Raises:
        UserError: If it is missing or damaged.
    """
    try:
        return kind_of(source).read(source, request)
    except OSError as error:
        # Whatever else the file system refuses, such as a folder without permission to list it.
        raise source.error(f"cannot be read: {error}.") from error


def _guess(spec: str) -> str:
    path = expanduser(spec)  # noqa: PTH111
    fitting = [kind for kind in SOURCES.values() if kind.recognizes(path)]
    return f" {fitting[0].hint} write --data {fitting[0].name}:{spec}." if fitting else advice_on(path)
