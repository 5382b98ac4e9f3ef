"""Which files of a folder are images, and of which class.

Tested in ``tests/engine/data/test_folder.py``.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gan_blocks.engine.data.opening import image_suffixes
from gan_blocks.engine.data.source import DataSource

__all__ = ["FolderListing", "list_flat_folder", "list_folder"]


class FolderListing(NamedTuple):
    """The image files in the order of classes and names, with their labels."""

    class_names: tuple[str, ...]
    paths: list[str]
    labels: list[int]
    notes: tuple[str, ...]


def list_folder(source: DataSource) -> FolderListing:
    """List the images one level down. Sub-folders in the order of their names are the classes; hidden ones are not.

    A file is an image by its suffix, if Pillow has a reader for it, or if it has none.

    Raises:
        UserError: If the folder is missing, or there are no images in its sub-folders.
    """
    root = source.existing_path()
    if not root.is_dir():
        raise source.error(f"{root} is a file; name the folder that holds one sub-folder a class.")
    entries = _visible(root)
    classes = [entry.name for entry in entries if entry.is_dir()]
    if not classes:
        raise source.error(f"{root} holds no sub-folders; put the images into one sub-folder a class.")
    paths: list[str] = []
    labels: list[int] = []
    skipped = [entry.path for entry in entries if not entry.is_dir()]
    for label, name in enumerate(classes):
        found = _images_among(_visible(root / name), skipped)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise source.error(_no_images(root, skipped))
    return FolderListing(tuple(classes), paths, labels, _skipped_notes(root, skipped))


def list_flat_folder(source: DataSource) -> FolderListing:
    """List the images of a folder without sub-folders as one class; of one with sub-folders as :func:`list_folder`.

    Raises:
        UserError: If the folder is missing or holds no images.
    """
    root = source.existing_path()
    if not root.is_dir() or any(entry.is_dir() for entry in _visible(root)):
        return list_folder(source)
    skipped: list[str] = []
    paths = _images_among(_visible(root), skipped)
    if not paths:
        raise source.error(f"{root} holds no images.")
    return FolderListing(("all images",), paths, [0] * len(paths), _skipped_notes(root, skipped))


def _images_among(entries: Iterable[os.DirEntry[str]], skipped: list[str]) -> list[str]:
    """The paths of the images; those of everything else are added to ``skipped``."""
    suffixes = {"", *image_suffixes()}
    paths: list[str] = []
    for entry in entries:
        no_image = entry.is_dir() or Path(entry.name).suffix.lower() not in suffixes
        (skipped if no_image else paths).append(entry.path)
    return paths


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _no_images(root: Path, skipped: Iterable[str]) -> str:
    nested = next((path for path in skipped if Path(path).is_dir()), None)
    if nested is not None:
        return (
            f"the sub-folders of {root} hold no images but folders of their own: usually the path is one level off; "
            f"try {Path(nested).parent}."
        )
    return f"the sub-folders of {root} hold no images."


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
