"""Which files of a folder are images, and of which class.

Tested in ``tests/engine/data/kinds/test_folder.py``.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gan_blocks.engine.data.opening import image_suffixes
from gan_blocks.engine.data.source import DataSource

__all__ = ["FolderListing", "list_flat_folder", "list_folder"]

# What a Mac adds to an archive, and a Synology to each folder of pictures.
_OF_OTHER_SYSTEMS = ("__MACOSX", "@eaDir")
_NAMED = 3


class FolderListing(NamedTuple):
    """The image files in the order of classes and names, with their labels."""

    class_names: tuple[str, ...]
    paths: list[str]
    labels: list[int]
    notes: tuple[str, ...]


def list_folder(source: DataSource) -> FolderListing:
    """List the images one level down. Sub-folders that hold images are the classes, in the order of their names.

    A file is an image by its suffix, if Pillow has a reader for it, or if it has none. Hidden folders, those in which
    other systems keep their own things, and the folders of a run are no classes.

    Raises:
        UserError: If the folder is missing, or there are no images in its sub-folders.
    """
    root = source.existing_path()
    if not root.is_dir():
        raise source.error(f"{root} is a file; name the folder that holds one sub-folder a class.")
    entries = _visible(root)
    folders = [entry.name for entry in entries if _is_folder(entry)]
    if not folders:
        raise source.error(_no_folders(root))
    classes: list[str] = []
    paths: list[str] = []
    labels: list[int] = []
    left_out: list[str] = []
    deeper: str | None = None
    skipped = [entry.path for entry in entries if not _is_folder(entry)]
    for name in folders:
        inside: list[str] = []
        found = [] if _is_no_class(root, name) else _images_among(_visible(root / name), inside)
        if not found:
            left_out.append(name)
            nested = next((path for path in inside if Path(path).is_dir()), None)
            deeper = deeper or nested
            continue
        skipped += inside
        paths += found
        labels += [len(classes)] * len(found)
        classes.append(name)
    if not paths:
        raise source.error(_no_images(root, deeper))
    return FolderListing(tuple(classes), paths, labels, (*_left_out_notes(left_out), *_skipped_notes(root, skipped)))


def list_flat_folder(source: DataSource) -> FolderListing:
    """List the images of a folder without sub-folders as one class; of one with sub-folders as :func:`list_folder`.

    Raises:
        UserError: If the folder is missing or holds no images.
    """
    root = source.existing_path()
    if not root.is_dir() or any(_is_folder(entry) for entry in _visible(root)):
        return list_folder(source)
    skipped: list[str] = []
    paths = _images_among(_visible(root), skipped)
    if not paths:
        raise source.error(f"{root} holds no images.")
    return FolderListing(("all images",), paths, [0] * len(paths), _skipped_notes(root, skipped))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link that leads nowhere, such as to itself
        return entry.is_dir()
    return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_file()
    return False


def _is_no_class(root: Path, name: str) -> bool:
    """Whether a folder belongs to another system, or to a run, whose sheets would be taken for images."""
    of_run = _is_run(root / name) or (name in ("checkpoints", "samples") and _is_run(root))
    return name in _OF_OTHER_SYSTEMS or of_run


def _is_run(folder: Path) -> bool:
    return (folder / "config.json").exists() and (folder / "checkpoints").is_dir()


def _images_among(entries: Iterable[os.DirEntry[str]], skipped: list[str]) -> list[str]:
    """The paths of the images; those of everything else are added to ``skipped``."""
    suffixes = {"", *image_suffixes()}
    paths: list[str] = []
    for entry in entries:
        suffix = Path(entry.name).suffix.lower()
        # A link that leads nowhere is an image that is gone if its name says so; a pipe or a device is none at all.
        is_image = suffix in suffixes and (_is_file(entry) or (suffix != "" and not os.path.exists(entry.path)))  # noqa: PTH110
        (paths if is_image else skipped).append(entry.path)
    return paths


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _no_folders(root: Path) -> str:
    advice = "put the images into one sub-folder a class"
    if not _images_among(_visible(root), []):
        return f"{root} holds no images; {advice}."
    return f"{root} holds no sub-folders; {advice}, or give --num-classes 1 to train without classes."


def _no_images(root: Path, deeper: str | None) -> str:
    if deeper is not None:
        return (
            f"the sub-folders of {root} hold no images but folders of their own: usually the path is one level off; "
            f"try {Path(deeper).parent}."
        )
    return f"the sub-folders of {root} hold no images."


def _left_out_notes(names: list[str]) -> tuple[str, ...]:
    if not names:
        return ()
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    number = "1 folder that holds" if len(names) == 1 else f"{len(names):,} folders that hold"
    return (f"left out {number} no images to learn, and so no class: {', '.join(names[:_NAMED])}{more}",)


def _skipped_notes(root: Path, skipped: list[str]) -> tuple[str, ...]:
    notes = []
    folders = [path for path in skipped if Path(path).is_dir()]
    files = [path for path in skipped if not Path(path).is_dir()]
    for what, paths in (
        ("files that are no images or in no class", files),
        ("folders inside a class, of which only the top level is read", folders),
    ):
        if paths:
            notes.append(f"skipped {what}: {len(paths):,}, such as {os.path.relpath(paths[0], root)}")
    return tuple(notes)
