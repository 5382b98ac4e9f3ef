"""The page that ``--help`` prints: examples first, then the options in groups, each with its value where it has one.

One that is on or off stands there with both of its spellings: ``--[no-]mirror (off)``.

What a page says of an option is the first paragraph of its field's docstring; the rest is for readers of the code.

Tested in ``tests/engine/base/terminal/test_help_page.py``.
"""

import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import tyro

__all__ = ["Examples", "help_page", "hint", "option_names", "switch_names"]

Examples = Sequence[tuple[str, str]]
"""Command lines, each with what it does."""

NARROWEST, WIDEST = 50, 100  # columns of text, on a terminal however narrow or wide
LONGEST = 40  # characters of a value
SHORTEST = 12  # columns of text beside a long option
LEFT = 27  # columns of an option that has its text beside it
ORDER = ("options", "data", "networks", "optimization", "regularizers")
LAST = ("run", "monitoring")
METAVARS: dict[Any, str] = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


@dataclasses.dataclass(frozen=True)
class Hint:
    text: Any


def hint(text: Any) -> Any:
    """Metadata for the type of a field: words at the end of its help, or a function that returns them."""
    return Hint(text)


class Option(NamedTuple):
    """One option of the page."""

    name: str
    usage: str
    """Its name and value, or what kind of value it takes."""
    text: str
    group: str
    changed: bool
    """Whether the value is another than that of a fresh Config."""
    is_switch: bool
    """Whether it is on or off."""


def help_page(
    kind: type[Any], *, prog: str, description: str, examples: Examples = (), changed: str = "", usage: str = ""
) -> str:
    """The help of the command whose options are the fields of a dataclass.

    Args:
        kind: The options. A field that is a dataclass itself stands for that one's fields, with the values of its
            default; their names begin with its own unless it is marked with ``tyro.conf.OmitArgPrefixes``.
        prog: How the command is typed.
        description: What it does: paragraphs, lists of ``* `` and indented blocks, which keep their lines.
        examples: Command lines to begin with.
        changed: What has other values than a fresh dataclass, which are marked: "what ... sets".
        usage: What follows ``prog`` in the first line; empty: as the options are.
    """
    width = max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST))
    options = list(_options(kind))
    positional = [option.usage for option in options if not option.usage.startswith("--")]
    lines = [f"usage: {' '.join([prog, usage or ' '.join([*positional, '[OPTIONS]'])])}"]
    if examples:
        lines += ["", *_table(examples, width)]
    for block in description.strip().replace("``", "").split("\n\n"):
        lines += ["", *_paragraph(block, width)]
    marked = changed if any(option.changed for option in options) else ""
    if marked:
        lines += ["", f"* marks {marked}."]
    for group, members in _grouped(options).items():
        lines += ["", f"{group}:"]
        for option in members:
            lines += _entry(option, width, marked="*" if option.changed and marked else " ")
    return "\n".join(line.rstrip() for line in lines)


def option_names(kind: type[Any]) -> list[str]:
    """The names of all options of a command."""
    return [option.name for option in _options(kind)]


def switch_names(kind: type[Any]) -> list[str]:
    """The names of those that are on or off."""
    return [option.name for option in _options(kind) if option.is_switch]


def _options(
    kind: type[Any], values: Any = None, fresh: Any = None, *, title: str = "options", prefix: str | None = ""
) -> Iterator[Option]:
    """The options of a dataclass and of those inside it, with these values or, without any, the defaults.

    They are changed where they differ from the fresh ones: without any, from the defaults. Without a prefix, names of
    fields inside have none either.
    """
    texts = _docstrings(kind)
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        own = _own_default(field) if fresh is None else getattr(fresh, field.name)
        annotation = hints[field.name]
        value = own if values is None else getattr(values, field.name)
        if dataclasses.is_dataclass(inner := _plain(annotation)):
            assert isinstance(inner, type)
            marked = tyro.conf.OmitArgPrefixes in _walk(annotation)
            inside, before = (None if part is dataclasses.MISSING else part for part in (value, own))
            yield from _options(
                inner,
                inside,
                None if marked else before,
                title=field.name.replace("_", " "),
                prefix=None if marked or prefix is None else f"{prefix}{field.name.replace('_', '-')}.",
            )
            continue
        metadata = list(_walk(annotation))
        name = (prefix or "") + (_said(metadata, "name") or field.name).replace("_", "-")
        text = _said(metadata, "help") or texts.get(field.name, "")
        choices = _choices(annotation)
        if value is dataclasses.MISSING:
            text = f"{text} Required."
        for ending in (entry.text for entry in metadata if isinstance(entry, Hint)):
            text = f"{text} {ending() if callable(ending) else ending}"
        if not all(re.search(rf"(?<![\w-]){re.escape(choice)}(?![\w-])", text) for choice in choices):
            text = f"{text.rstrip('.')}: {', '.join(choices)}.".removeprefix(": ")
        usage = _usage(name, annotation, value)
        if tyro.conf.Positional in metadata:
            usage = f"[{name.upper()} ...]"
        group = _group(kind, field.name) or title
        changed = values is not None and own is not dataclasses.MISSING and value != own
        yield Option(f"--{name}", usage, text, group, changed, is_switch=_plain(annotation) is bool)


def _said(metadata: Sequence[Any], name: str) -> str:
    """What the parser's own metadata say of a name or a help text."""
    said = [getattr(entry, name, None) for entry in metadata]
    return next((text for text in said if isinstance(text, str) and text), "")


def _own_default(field: Any) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _usage(name: str, annotation: Any, value: Any) -> str:
    if _plain(annotation) is bool:
        return f"--[no-]{name} ({'on' if value is True else 'off'})"
    if value is None or value is dataclasses.MISSING or value in ((), "", Path()):
        return f"--{name} {_metavar(annotation)}"
    words = " ".join(str(entry) for entry in value) if isinstance(value, tuple) else str(value)
    shown = f"{value:g}" if isinstance(value, float) else " ".join(words.split())
    return f"--{name} {shown if len(shown) <= LONGEST else shown[: LONGEST - 3] + '...'}"


def _metavar(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _metavar(args[0])
    if origin in (Union, types.UnionType):
        return _metavar(next(kind for kind in args if kind is not type(None)))
    if origin is tuple:
        return f"[{_metavar(args[0]) if args else ''} ...]"
    if origin is Literal:
        return f"{{{','.join(map(str, args))}}}"
    return METAVARS.get(annotation, "VALUE")


def _choices(annotation: Any) -> list[str]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [str(choice) for choice in args]
    if origin is Annotated:
        return _choices(args[0])
    if origin is tuple and args:
        return _choices(args[0])
    if origin in (Union, types.UnionType):
        return [choice for kind in args for choice in _choices(kind)]
    return []


def _plain(annotation: Any) -> Any:
    """The annotation without its metadata."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _walk(annotation: Any) -> Iterator[Any]:
    """The metadata of an annotation and of what it is made of."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        yield from metadata
        yield from _walk(inner)


def _group(kind: type[Any], name: str) -> str | None:
    """The group of the class that adds the field, not of one that gives it another default."""
    for base in reversed(kind.__mro__):
        if name in vars(base).get("__annotations__", {}):
            return vars(base).get("help_group")
    return None


def _docstrings(kind: type[Any]) -> Mapping[str, str]:
    """The first paragraph below each field, as one line."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError, SyntaxError):
            continue  # made at run time, or its file is gone
        assert isinstance(tree, ast.ClassDef)
        for field, below in pairwise(tree.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value) if isinstance(below.value, ast.Constant) else ""
                found[field.target.id] = " ".join(inspect.cleandoc(str(text)).partition("\n\n")[0].split())
    return found


def _grouped(options: Sequence[Option]) -> dict[str, list[Option]]:
    groups: dict[str, list[Option]] = {}
    for option in options:
        groups.setdefault(option.group, []).append(option)
    between = [group for group in groups if group not in (*ORDER, *LAST)]
    return {group: groups[group] for group in (*ORDER, *between, *LAST) if group in groups}


def _entry(option: Option, width: int, *, marked: str) -> list[str]:
    head = f"{marked} {option.usage} ".ljust(LEFT)
    room = width - LEFT - 1
    taken = len(head) - LEFT
    if taken > room - SHORTEST:  # nothing is gained by beginning beside it
        return [head, *(" " * (LEFT + 1) + line for line in textwrap.wrap(option.text, room, break_on_hyphens=False))]
    # A long option takes its place from the first line of its text.
    first, *others = textwrap.wrap(option.text, room, initial_indent=" " * taken, break_on_hyphens=False) or [""]
    first = first.lstrip()
    return [f"{head} {first}", *(" " * (LEFT + 1) + line for line in others)]


def _table(examples: Examples, width: int) -> Iterator[str]:
    column = max(len(command) for command, _ in examples) + 4
    for command, purpose in examples:
        first, *others = textwrap.wrap(purpose, max(width - column, 20)) or [""]
        yield f"  {command}".ljust(column) + first
        yield from (" " * column + line for line in others)


def _paragraph(block: str, width: int) -> list[str]:
    if block.startswith(" "):
        return block.splitlines()
    if block.startswith("* "):
        entries = block.removeprefix("* ").split("\n* ")
        return [
            line
            for entry in entries
            for line in textwrap.wrap(
                " ".join(entry.split()), width, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False
            )
        ]
    return textwrap.wrap(" ".join(block.split()), width, break_on_hyphens=False, break_long_words=False)
