"""The console script ``gan-blocks``: its first word is a command.

Commands of other packages join by the entry-point group ``gan_blocks.commands``: a function ``(argv, *, prog)`` that
returns the exit status.

Tested in ``tests/engine/commands/test_console.py``.
"""

import ast
import importlib.util
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import cast

from gan_blocks.engine.base.checks import unknown_word
from gan_blocks.engine.base.terminal.command_line import run_command

__all__ = ["COMMANDS", "main", "run"]

GROUP = "gan_blocks.commands"
COMMANDS = {
    "train": "train a recipe, or continue a run",
    "presets": "list all recipes and presets: data, resolution, parameters",
    "sample": "draw from a trained generator: grids, films, one sheet a class",
    "evaluate": "measure the samples of a run against the real images",
    "neighbors": "show the training images that are nearest to samples",
    "describe": "list the layers of networks, and what a step costs",
    "prepare": "decode and resize images once, into a store to train on",
}
"""The engine's own commands, each a module beside this one."""

Command = Callable[..., int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; see ``gan-blocks --help``."""
    words = list(sys.argv[1:] if argv is None else argv)

    def command() -> int:
        if not words or words[0] in ("-h", "--help"):
            print(_usage())
            return 0
        if words[0] == "--version":  # what a report of a fault should say
            versions = [f"{name} {version(name)}" for name in ("gan_blocks", "torch")]
            print(f"{', '.join(versions)}, Python {platform.python_version()}")
            return 0
        return _find(words[0])(words[1:], prog=f"gan-blocks {words[0]}")

    return run_command("gan-blocks", command)


def run(name: str, argv: Sequence[str] | None = None, *, prog: str) -> int:
    """Run one of the engine's commands under another name, such as ``python -m recipes.sample``."""
    return _find(name)(argv, prog=prog)


def _find(name: str) -> Command:
    if name in COMMANDS:
        return cast(Command, importlib.import_module(f"gan_blocks.engine.commands.{name}").main)
    for entry in entry_points(group=GROUP, name=name):
        return cast(Command, entry.load())
    raise unknown_word(name, _summaries())


def _summaries() -> dict[str, str]:
    others = {entry.name: _headline(entry) for entry in entry_points(group=GROUP)}
    return {**COMMANDS, **dict(sorted(others.items()))}


def _headline(entry: EntryPoint) -> str:
    """The first line of the module's docstring, read without importing what the module imports."""
    try:
        spec = importlib.util.find_spec(entry.module)
        source = Path(spec.origin or "").read_text() if spec is not None else ""
    except (ImportError, OSError):
        source = ""
    headline = (ast.get_docstring(ast.parse(source)) or f"of {entry.module}").partition("\n")[0]
    return headline[0].lower() + headline[1:].rstrip(".")


def _usage() -> str:
    summaries = _summaries()
    width = max(map(len, summaries))
    commands = "\n".join(f"  {name:<{width}}  {text}" for name, text in summaries.items())
    return f"""usage: gan-blocks COMMAND ...

  gan-blocks train biggan_deep --run-dir runs/digits    # a recipe that is registered
  gan-blocks train my_gan.py                            # one of your own
  gan-blocks sample --run runs/digits

commands:
{commands}

gan-blocks COMMAND --help lists the options of a command, gan-blocks --version what is installed."""
