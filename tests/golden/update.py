"""The public interface as data, so that a change of it shows as a diff of ``public_api.json``.

``python -m tests.golden.update`` writes the file anew. A diff that only adds is a new feature; a diff that changes or
removes a line breaks somebody's code and belongs into the commit message.
"""

import ast
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import gan_blocks

__all__ = ["GOLDEN", "describe_public_api"]

GOLDEN = Path(__file__).with_name("public_api.json")


def describe_public_api() -> dict[str, Any]:
    """Map every public name to its signature as the source writes it; a class to its members' signatures."""
    return {name: describe(getattr(gan_blocks, name)) for name in gan_blocks.__all__}


def describe(thing: Any) -> str | dict[str, str]:
    if inspect.isclass(thing):
        members: dict[str, str] = {}
        for base in reversed(thing.__mro__):
            if base.__module__.startswith("gan_blocks"):
                members |= class_members(base)
        return members
    if inspect.isroutine(thing):
        return signature(definition(thing))
    return repr(thing)


def class_members(cls: type) -> dict[str, str]:
    """Describe what the body of the class itself defines and does not mark as private."""
    members: dict[str, str] = {}
    for node in definition(cls).body:
        if isinstance(node, ast.FunctionDef) and (node.name in ("__init__", "__call__") or node.name[0] != "_"):
            marks = "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
            members[node.name] = marks + signature(node)
        elif isinstance(node, ast.AnnAssign) and (name := ast.unparse(node.target))[0] != "_":
            default = f" = {ast.unparse(node.value)}" if node.value else ""
            members[name] = f": {ast.unparse(node.annotation)}{default}"
    return members


def definition(thing: Any) -> Any:
    """Parse the source of a function or class."""
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))).body[0]


def signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(describe_public_api(), indent=2) + "\n")
