"""The log of a run: one JSON object a line, added at once, and read whatever the last line looks like.

Tested in ``tests/engine/runs/test_folder.py``.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import read_regular, replace_durably, writing
from gan_blocks.engine.base.json_values import DamagedJsonError, check_shape, is_count, is_number, parse_object

__all__ = ["append_entry", "read_entries", "remove_entries"]

UNTOUCHED = "The checkpoints are untouched."


def append_entry(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line.

    Raises:
        UserError: If it cannot be written.
    """
    line = json.dumps(entry).encode() + b"\n"
    with writing(path, remedy=UNTOUCHED), path.open("ab") as file:
        file.write(line)


def read_entries(path: Path) -> list[dict[str, Any]]:
    """All entries but an unfinished last one.

    Raises:
        UserError: If another line is damaged.
    """
    entries = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            entries.append(_parse_line(line))
        except DamagedJsonError as error:
            raise UserError(f"line {number} of {path} is damaged: {error}.") from None
    return entries


def remove_entries(path: Path, *, after_step: int) -> None:
    """Remove entries of later steps, and damaged lines; entries without a ``step`` stay.

    Raises:
        UserError: If it cannot be written.
    """
    if not path.exists():
        return
    kept = []
    for line in _lines(path):
        with suppress(DamagedJsonError):
            if _parse_line(line).get("step", after_step) <= after_step:
                kept.append(line)
    replace_durably(path, b"".join(line + b"\n" for line in kept), remedy=UNTOUCHED)


def _lines(path: Path) -> list[bytes]:
    try:
        return read_regular(path).split(b"\n")[:-1]  # what follows the last newline is not finished
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def _parse_line(line: bytes) -> dict[str, Any]:
    """An entry of the log.

    Raises:
        DamagedJsonError: If it is none.
    """
    entry = parse_object(line, {})
    shape = {"step": is_count} if "step" in entry else {}
    if entry.get("event") == "checkpoint":
        shape["seconds"] = is_number
    check_shape(entry, shape)
    return entry
