"""Checks for the ``__post_init__`` of a Config or of a command's Options, worded as the options that set its fields.

Tested in ``tests/engine/base/test_checks.py``.
"""

import dataclasses
import difflib
import math
import os
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from gan_blocks.engine.base.errors import UserError

__all__ = [
    "Fields",
    "broken_rule",
    "check_threads",
    "perhaps_meant",
    "require",
    "require_annotated",
    "require_at_least",
    "require_each_once",
    "require_positive",
    "require_within",
    "shortened",
    "unknown_word",
]

MOST_THREADS = 1024  # torch crashes on numbers that no machine has
_LONGEST_NAME, _LONGEST_PATH = 255, 1000  # bytes; Linux takes paths of 4,095, but not with what is written in a run
_SHOWN = 200

# What a value must be for each plain annotation; bool is an int to Python, but not to a user.
PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    Path: ((Path,), "a path"),
}


@dataclass(frozen=True)
class Fields:
    """A group of options, to inherit from: a frozen dataclass whose values fit their annotations.

    A group with rules of its own checks them in a ``__post_init__`` that calls ``super().__post_init__()`` first, so
    that a Config that inherits several groups gets the checks of all of them.

    Attributes:
        help_group: Where ``--help`` lists the fields that a class adds, below a heading of that name.
        moved_fields: What is no field any more, by the module of the recipe that has it now: names and the values that
            they had by default. A saved Config with such a value is read as if the field had never been.
    """

    help_group: ClassVar[str]
    moved_fields: ClassVar[Mapping[str, Mapping[str, Any]]]

    def __post_init__(self) -> None:
        """Check every value against its annotation; see :func:`require_annotated`."""
        require_annotated(self)


def require_annotated(config: Any) -> None:
    """Check that every field of a dataclass holds what its annotation says, wherever the values come from.

    Understood are bool, int, float, str, Path, Literal, tuples of these, and None beside any of them; and dataclasses,
    whose fields are looked at in turn. Fields with other annotations are not looked at. Whole numbers must be of 64
    bits, and paths such as a file system can hold.

    Raises:
        UserError: If a field does not; it is named as its option.
    """
    hints = _annotations(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            require_annotated(value)
        elif rule := broken_rule(value, hints[field.name]):
            require(config, field.name, False, rule)


def _annotations(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def broken_rule(value: Any, annotation: Any) -> str | None:
    """What the annotation asks for, in words, unless the value is that."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return broken_rule(value, args[0])
    if origin is Literal:
        # Compared with their types: True equals 1, but no user writes one for the other.
        fits = any(type(value) is type(choice) and value == choice for choice in args)
        choices = list(map(str, args))
        return None if fits else " or ".join(choices) if len(choices) < 3 else f"one of {', '.join(choices)}"
    if origin in (Union, types.UnionType):
        rules = [broken_rule(value, choice) for choice in args if choice is not type(None)]
        fits = None in rules or (value is None and type(None) in args)
        return None if fits else " or ".join(rule for rule in rules if rule)
    if origin is tuple:
        return _broken_rule_of_tuple(value, args)
    if annotation in PLAIN:
        kinds, rule = PLAIN[annotation]
        fits = isinstance(value, kinds) and (annotation is bool or not isinstance(value, bool))
        return _broken_limit(value) if fits else rule
    return None


def _broken_limit(value: Any) -> str | None:
    """What a value of the right type must be to be of use, in words, unless it is."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "a whole number of 64 bits"
    if isinstance(value, Path) and not _is_possible(value):
        return f"a path of names of at most {_LONGEST_NAME} bytes, {_LONGEST_PATH:,} in all"
    return None


def _is_possible(path: Path) -> bool:
    """Whether a file system could hold a path; else each question about it would raise an error of its own kind."""
    parts = [os.fsencode(part) for part in path.parts]
    lengths = [len(part) for part in parts]
    short = max(lengths, default=0) <= _LONGEST_NAME and sum(lengths) + len(lengths) <= _LONGEST_PATH
    return short and not any(b"\0" in part for part in parts)


def _broken_rule_of_tuple(value: Any, args: tuple[Any, ...]) -> str | None:
    if not isinstance(value, tuple):
        return "a tuple"
    if args[-1:] == (...,):
        args = (args[0],) * len(value)
    if len(value) != len(args):
        return f"{len(args)} values"
    broken = [rule for entry, kind in zip(value, args, strict=True) if (rule := broken_rule(entry, kind))]
    return f"values of which each is {broken[0]}" if broken else None


def check_threads(threads: int | None) -> None:
    """Raise UserError unless torch can have so many threads; None leaves the number to torch."""
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UserError(f"--threads must be from 1 to {MOST_THREADS:,}, but got {threads}.")


def require(config: object, field: str, holds: bool, rule: str) -> None:
    """Raise UserError, naming the field's option and value, unless its rule holds."""
    if not holds:
        value = getattr(config, field)
        shown = str((" ".join(map(str, value)) or "none") if isinstance(value, tuple) else value)
        raise UserError(f"--{field.replace('_', '-')} must be {rule}, but got {shortened(shown)}.")


def unknown_word(word: str, known: Iterable[str]) -> UserError:
    """What to raise for a first word that is none of the known ones."""
    listed = list(known)
    got = f"{shortened(word)}.{perhaps_meant(word, listed)}"
    return UserError(f"the first word must be one of {', '.join(listed)}, but got {got}")


def perhaps_meant(word: str, known: Iterable[str]) -> str:
    """A sentence with the nearest of the known words, to follow another one; empty if none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f" Perhaps you meant {nearest[0]}." if nearest else ""


def shortened(text: str) -> str:
    """The beginning of a text that is too long for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def require_positive(config: object, *fields: str) -> None:
    """Each field, or each entry of a tuple (of two or more), must be greater than 0, or None where that is allowed."""
    for field in fields:
        value = getattr(config, field)
        if isinstance(value, tuple):
            require(config, field, len(value) > 1 and min(value) > 0, "two or more numbers greater than 0")
            require(config, field, max(value) < math.inf, "two or more finite numbers")
        elif value is not None:
            require(config, field, value > 0, "greater than 0")
            require(config, field, value < math.inf, "a finite number")


def require_at_least(config: object, low: float, *fields: str) -> None:
    """Each field must be ``low`` or greater."""
    for field in fields:
        require(config, field, getattr(config, field) >= low, f"at least {low}")
        require(config, field, getattr(config, field) < math.inf, "a finite number")


def require_each_once(config: object, *fields: str) -> None:
    """Each field is a tuple that must not be empty, nor hold anything twice."""
    for field in fields:
        values = getattr(config, field)
        require(config, field, 0 < len(values) == len(set(values)), "one or more, each once")


def require_within(config: object, low: float, high: float, *fields: str) -> None:
    """Each field must lie in [low, high]."""
    for field in fields:
        require(config, field, low <= getattr(config, field) <= high, f"from {low} to {high}")
