"""JSON from files that anybody may have written: what is wrong with it is a sentence, never a traceback.

Tested in ``tests/engine/base/test_json_values.py``.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import read_regular

__all__ = [
    "DamagedJsonError",
    "check_shape",
    "is_count",
    "is_list_of",
    "is_number",
    "is_object",
    "is_text",
    "merged",
    "parse_object",
    "read_object",
]

Rule = Callable[[Any], bool]


class DamagedJsonError(ValueError):
    """The text is no JSON object, or one of another shape; says what is wrong, as the end of a sentence."""


def parse_object(text: bytes | str, shape: Mapping[str, Rule]) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: What should be one.
        shape: The entries that it must have, each with a question about its value.

    Returns:
        It, with all its entries.

    Raises:
        DamagedJsonError: If it is none, or an entry is missing or another than it should be.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DamagedJsonError("it is not a JSON object")
    check_shape(found, shape)
    return found


def check_shape(found: Mapping[str, Any], shape: Mapping[str, Rule]) -> None:
    """Check the entries of an object.

    Raises:
        DamagedJsonError: If one is missing or another than it should be.
    """
    for name, fits in shape.items():
        if name not in found:
            raise DamagedJsonError(f"it does not say {name}")
        if not fits(found[name]):
            raise DamagedJsonError(f"its {name} is not what was written there")


def read_object(path: Path, shape: Mapping[str, Rule]) -> dict[str, Any]:
    """The same from a file.

    Raises:
        UserError: If it cannot be read or is damaged; the file is named.
    """
    try:
        return parse_object(read_regular(path), shape)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except DamagedJsonError as error:
        raise UserError(f"{path} is damaged: {error}.") from None


def merged(parts: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The entries of all parts in one object.

    Args:
        parts: What to call a part in an error, and its entries.

    Raises:
        ValueError: If two parts have an entry of one name, of which only the last would be left.
    """
    found: dict[str, Any] = {}
    owners: dict[str, str] = {}
    for part, entries in parts:
        for name, value in entries.items():
            if name in found:
                raise ValueError(f"{owners[name]} and {part} both have an entry {name}; one needs another name.")
            found[name], owners[name] = value, part
    return found


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: Any) -> bool:
    """Whether a value is a number; NaN and the infinities are some."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_text(value: Any) -> bool:
    """Whether a value is text that prints as one line."""
    return isinstance(value, str) and value.isprintable()


def is_list_of(kind: type) -> Rule:
    """The rule that a value is a list whose entries are all of one kind; True and False are no numbers."""
    return lambda value: isinstance(value, list) and all(type(entry) is kind for entry in value)


def is_object(value: Any) -> bool:
    """Whether a value is an object."""
    return isinstance(value, dict)
