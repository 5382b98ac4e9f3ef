"""A Config as JSON: what a run saves of it, what is read back, and how it is typed.

Tested in ``tests/engine/recipe/test_config_json.py``.
"""

import dataclasses
import json
import types
from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from gan_blocks.engine.base.checks import broken_rule, shortened
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.runs.config_file import option_values

__all__ = ["as_options", "check_config_saves", "config_from_json", "config_to_json"]

ConfigT = TypeVar("ConfigT")


def as_options(values: Mapping[str, Any]) -> str:
    """JSON values of a Config as they are typed.

    Example:
        >>> as_options({"batch_size": 8, "widths": [4, 2], "stages": [[4, 16], [8, 32]]})
        '--batch-size 8 --widths 4 2 --stages 4 16 8 32'
    """
    options = ([f"--{name.replace('_', '-')}", *map(str, _entries(value))] for name, value in option_values(values))
    return " ".join(chain.from_iterable(options))


def _entries(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for entry in value:
            yield from _entries(entry)
    else:
        yield value


def config_to_json(config: Any) -> dict[str, Any]:
    """The fields of a Config as JSON values: tuples become lists, paths text, and dataclasses objects."""
    return {field.name: _to_json(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init}


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_to_json(value)
    if isinstance(value, tuple | list):
        return [_to_json(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def config_from_json(kind: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """A Config of a class from what :func:`config_to_json` gave; what is missing there takes the field's default.

    Args:
        kind: The class.
        values: The JSON values.

    Raises:
        UserError: If there are values of no field, or one does not fit its field.
    """
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    if unknown := {name: values[name] for name in sorted(set(values) - set(known))}:
        rule = f"which this version of {kind.__module__} does not know; the version that wrote it still reads it"
        raise UserError(f"the saved Config has {as_options(unknown)}, {rule}.")
    for name, field in known.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"the saved Config lacks --{name.replace('_', '-')}, which has no default.")
    hints = get_type_hints(kind)
    return kind(**{name: _from_json(value, hints[name]) for name, value in values.items()})


def _from_json(value: Any, annotation: Any) -> Any:
    """The value that an annotation asks for; one that does not fit it stays as it is, for the checks of the Config."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        choices = [] if value is None else [choice for choice in args if choice is not type(None)]
        read = ((_from_json(value, choice), choice) for choice in choices)
        return next((one for one, choice in read if broken_rule(one, choice) is None), value)
    if isinstance(value, list):
        alike = args[-1:] == (...,) or (origin is list and args)
        kinds = repeat(args[0]) if alike else chain(args, repeat(Any))
        entries = [_from_json(entry, kind) for entry, kind in zip(value, kinds, strict=False)]
        return entries if list in (annotation, origin) else tuple(entries)
    if annotation is Path and isinstance(value, str):
        return Path(value)
    if dataclasses.is_dataclass(annotation) and isinstance(value, dict):
        return config_from_json(annotation, value)  # type: ignore[arg-type]
    return value


def check_config_saves(config: Any) -> None:
    """Refuse a Config that a run could not be continued with, because what is saved of it reads as another.

    Raises:
        UserError: The first such field is named.
    """
    hints = get_type_hints(type(config))
    for name, saved in config_to_json(config).items():
        value = getattr(config, name)
        if not _is_read_back(value, saved, hints[name]):
            remedy = "Use numbers, flags, text, paths, None, and tuples, lists or dataclasses of these, annotated so"
            got = shortened(repr(value))
            raise UserError(f"--{name.replace('_', '-')} cannot be read back from a saved run: got {got}. {remedy}.")


def _is_read_back(value: Any, saved: Any, annotation: Any) -> bool:
    try:
        found = _from_json(json.loads(json.dumps(saved)), annotation)
    except (TypeError, ValueError, UserError):
        return False
    return _is_same(found, value)


def _is_same(found: Any, value: Any) -> bool:
    """Whether two values are equal and of one type, and so are all parts of them: a tuple equals one with names."""
    if type(found) is not type(value):
        return False
    if isinstance(value, tuple | list):
        return len(found) == len(value) and all(map(_is_same, found, value))
    if dataclasses.is_dataclass(value):
        return all(_is_same(getattr(found, one.name), getattr(value, one.name)) for one in dataclasses.fields(value))
    return bool(found == value) or repr(found) == repr(value)  # NaN is not equal to itself
