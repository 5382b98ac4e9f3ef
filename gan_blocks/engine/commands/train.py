"""Train a recipe, or continue a run.

Tested in ``tests/engine/commands/test_train.py``.
"""

import shlex
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.terminal.command_line import asks_for_help, run_command
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.registry import find_recipe, registered_recipes

__all__ = ["main", "recipe_usage", "take_recipe"]


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks train") -> int:
    """Train the recipe that the first word names; see ``gan-blocks train --help``."""
    words = list(sys.argv[1:] if argv is None else argv)

    def command() -> int:
        if asks_for_help(words[:1]):
            print(recipe_usage(prog, "lists the options of a recipe's training."))
            return 0
        recipe, rest = take_recipe(words)
        return recipe.main(rest, prog=f"{prog} {shlex.quote(words[0])}")

    return run_command("train", command)


def take_recipe(words: Sequence[str]) -> tuple[Recipe[Any], list[str]]:
    """The recipe that the first word of a command line names, and the other words.

    Raises:
        UserError: If there is none.
    """
    if not words or words[0].startswith("-"):
        got = words[0] if words else "nothing"
        known = ", ".join(registered_recipes())
        raise UserError(f"the first word must name a recipe ({known}, a file or a module), but got {got}.")
    return find_recipe(words[0]), list(words[1:])


def recipe_usage(prog: str, what: str) -> str:
    """The help of a command whose options depend on the recipe that its first word names."""
    return f"""usage: {prog} RECIPE [OPTIONS]

RECIPE is a file (my_gan.py), a module (my_package.my_gan) or registered:
{textwrap.fill(", ".join(registered_recipes()), 78, initial_indent="  ", subsequent_indent="  ")}

{prog} RECIPE --help {what}"""
