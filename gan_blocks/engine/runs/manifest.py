"""MANIFEST.json: the size and a hash of every file of a folder, to tell a whole folder from a damaged one.

The hash is XXH3 of 128 bits, which costs next to nothing. It tells damage, not somebody who means harm.

Tested in ``tests/engine/runs/test_checkpoints.py``.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import xxhash

from gan_blocks.engine.base.chunked_content import ChunkedContent
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import open_regular, read_regular

__all__ = ["MANIFEST_NAME", "encode_manifest", "find_damage", "find_file_damage", "manifest_entry"]

MANIFEST_NAME = "MANIFEST.json"
_HASHES: dict[str, Callable[[], Any]] = {"xxh3_128": xxhash.xxh3_128, "sha256": hashlib.sha256}  # that of older runs
# What says that there is no such file, whoever asks and whenever. Others (EIO, ESTALE, EACCES ...) say nothing of it.
_NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)


def manifest_entry(data: bytes | ChunkedContent) -> dict[str, Any]:
    """What the manifest says of a file with this content."""
    if isinstance(data, ChunkedContent):
        return data.entry()
    return {"size": len(data), "xxh3_128": xxhash.xxh3_128_hexdigest(data)}


def encode_manifest(entries: dict[str, dict[str, Any]]) -> bytes:
    """The content of MANIFEST.json for entries by file name."""
    return json.dumps({"files": entries}, indent=2, sort_keys=True).encode() + b"\n"


def find_damage(folder: Path, only: Collection[str] | None = None) -> str | None:
    """Compare the files of a folder with its manifest.

    Args:
        folder: Holds a manifest.
        only: Names of the files to look at; None: every file that is listed.

    Returns:
        What is wrong with the first file that differs, in words, or None when all is well.

    Raises:
        OSError: If a file cannot be read just now, which says nothing of what is in it.
    """
    try:
        files = _listed_files(folder)
    except _ManifestError as error:
        return str(error)
    for name in sorted(files if only is None else only):
        damage = _compare(folder / name, files[name]) if name in files else f"{MANIFEST_NAME} does not list {name}"
        if damage is not None:
            return damage
    return None


def find_file_damage(path: Path) -> str | None:
    """Compare one file with the manifest beside it; without a manifest, or when that does not list it, all is well.

    Raises:
        UserError: If the file or the manifest cannot be read just now.
    """
    try:
        if not (path.parent / MANIFEST_NAME).exists():
            return None
        files = _listed_files(path.parent)
        return _compare(path, files[path.name]) if path.name in files else None
    except _ManifestError:
        return None  # what is damaged here is the manifest; nothing is known of the file
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read: {error.strerror}.") from None


class _ManifestError(Exception):
    pass


def _listed_files(folder: Path) -> dict[str, Any]:
    try:
        files = json.loads(read_regular(folder / MANIFEST_NAME))["files"]
    except FileNotFoundError:
        raise _ManifestError(f"{MANIFEST_NAME} is missing") from None
    except OSError as error:
        raise _ManifestError(_no_file(MANIFEST_NAME, error)) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _ManifestError(f"{MANIFEST_NAME} is garbled") from None
    if not isinstance(files, dict) or not files:
        raise _ManifestError(f"{MANIFEST_NAME} is garbled")
    return files


def _compare(path: Path, expected: Any) -> str | None:
    entry: dict[str, Any] = expected if isinstance(expected, dict) else {}
    kind = next((name for name in _HASHES if isinstance(entry.get(name), str)), None)
    if kind is None or type(entry.get("size")) is not int:
        return f"{MANIFEST_NAME} is garbled: its entry of {path.name} is not a size in bytes and a hash that is known"
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry["size"]:
                return f"{path.name} has {size} bytes instead of {entry['size']}"
            if hashlib.file_digest(file, _HASHES[kind]).hexdigest() != entry[kind]:
                return f"the content of {path.name} has changed (its hash differs)"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return _no_file(path.name, error)
    except ValueError:  # no name of a file
        return f"{MANIFEST_NAME} is garbled"
    return None


def _no_file(name: str, error: OSError) -> str:
    """What is wrong where something else lies in the place of a file; other errors are raised again."""
    if error.errno not in _NO_FILE:
        raise error
    return f"{name} cannot be read: {error.strerror}"
