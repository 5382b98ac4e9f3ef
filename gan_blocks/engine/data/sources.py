"""The table of data sources, and what is read by it.

Tested in ``tests/engine/data/test_sources.py``.
"""

from os.path import expanduser  # pathlib's raises for users that do not exist
from pathlib import Path
from shlex import quote

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.kinds.cifar10 import CIFAR10
from gan_blocks.engine.data.kinds.digits import FASHION_MNIST, MNIST5K
from gan_blocks.engine.data.kinds.folder import FOLDER
from gan_blocks.engine.data.kinds.npz import NPZ, advice_on
from gan_blocks.engine.data.kinds.stacked import STACKED_MNIST5K
from gan_blocks.engine.data.shards.reader import SHARDS
from gan_blocks.engine.data.source import DataSource
from gan_blocks.engine.data.source_kind import DataShape, ReadRequest, SourceKind

__all__ = [
    "SOURCES",
    "absolute",
    "kind_of",
    "parse_source",
    "read_source",
    "recognized",
    "refuse_run_inside_images",
    "shape_of_source",
    "side_of_source",
    "source_choices",
]

USUAL_SIDE = 32  # of the small pictures that other kinds hold

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


def absolute(spec: str) -> str:
    """The same value of ``--data`` as it is understood in any working directory."""
    source = parse_source(spec)
    return spec if source.path is None else f"{source.name}:{source.path.absolute()}"


def refuse_run_inside_images(spec: str, run_dir: Path) -> None:
    """Check that a run's own pictures will not lie among those that it learns from.

    Raises:
        UserError: If the folder of the run would lie in that of the images, or be it.
    """
    source = parse_source(spec)
    if source.path is None or kind_of(source).list_files is None:
        return
    images, folder = source.path.resolve(), run_dir.resolve()
    if folder == images or images in folder.parents:
        raise UserError(
            f"--run-dir must lie outside the images in {source.path}, but is {run_dir}: name another folder."
        )


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


def shape_of_source(source: DataSource, num_classes: int | None) -> DataShape | None:
    """The channels and classes of a source, for new networks; None where its kind does not tell.

    Raises:
        UserError: If it is missing or damaged.
    """
    look = kind_of(source).shape
    try:
        return None if look is None else look(source, num_classes)
    except OSError as error:
        raise source.error(f"cannot be read: {error}.") from error


def side_of_source(source: DataSource) -> int:
    """The side of the images of a source: of the first one, or the side that its kind is used with.

    Raises:
        UserError: If it is missing or damaged.
    """
    look = kind_of(source).side
    try:
        return USUAL_SIDE if look is None else look(source)
    except OSError as error:
        raise source.error(f"cannot be read: {error}.") from error


def recognized(spec: str, *, option: str) -> DataSource:
    """A source that is given with its kind, or by a path alone that looks like one of them.

    Raises:
        UserError: If it looks like none.
    """
    name = spec.partition(":")[0]
    path = expanduser(spec)  # noqa: PTH111
    if name not in SOURCES:
        for kind in SOURCES.values():
            if kind.recognizes(path):
                return DataSource(f"{kind.name}:{spec}", kind.name, Path(path), option=option)
        if not Path(path).exists():
            raise UserError(f"{option} {spec}: there is no file or folder {Path(path).absolute()}; check the path.")
        raise UserError(f"{option} {spec}: unknown source; choose one of {source_choices()}.{_guess(spec)}")
    source = parse_source(spec)
    return DataSource(spec, source.name, source.path, option=option)


def _guess(spec: str) -> str:
    path = expanduser(spec)  # noqa: PTH111
    fitting = [kind for kind in SOURCES.values() if kind.recognizes(path)]
    return f" {fitting[0].hint} write --data {quote(f'{fitting[0].name}:{spec}')}." if fitting else advice_on(path)
