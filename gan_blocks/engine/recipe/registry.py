"""Finding recipes: those that packages register, and those that the user names.

A package registers a recipe in its ``pyproject.toml``, after which every command knows it by its short name::

    [project.entry-points."gan_blocks.recipes"]
    my_gan = "my_package.my_gan:RECIPE"

A run's folder says which recipe made it, but nobody's word is imported because a folder says so: see ``recipe_of``.

Tested in ``tests/engine/recipe/test_registry.py``.
"""

import importlib
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from os.path import expanduser, isdir, isfile  # pathlib's raise for users that do not exist, and for long names
from pathlib import Path
from types import ModuleType
from typing import Any

from gan_blocks.engine.base.checks import perhaps_meant, shortened
from gan_blocks.engine.base.code_files import failing_line, import_error, load_code_file
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import as_seen_from_here
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.runs.identity import RecipeIdentity

__all__ = [
    "GROUP",
    "find_recipe",
    "is_registered",
    "load_registered",
    "name_for_commands",
    "recipe_of",
    "registered_recipes",
]

GROUP = "gan_blocks.recipes"


@lru_cache(maxsize=1)
def registered_recipes() -> Mapping[str, EntryPoint]:
    """The recipes that installed packages register, by their short names; none of them is imported."""
    found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return {entry.name: entry for entry in found}


def find_recipe(named: str) -> Recipe[Any]:
    """The recipe that the user names on a command line.

    Args:
        named: A registered short name (``biggan_deep``), a file (``my_gan.py``) or a module (``my_package.my_gan``).
            File and module may be followed by ``:NAME`` where the value is not called ``RECIPE``.

    Raises:
        UserError: If there is none.
    """
    if named in registered_recipes():
        return load_registered(registered_recipes()[named])
    place, _, value = named.partition(":")
    if place.endswith(".py") or "/" in place:
        module = _load_file(Path(expanduser(place)))  # noqa: PTH111
    else:
        module = _import_module(place, named)
    return _recipe_in(module, value or "RECIPE", named)


def load_registered(entry: EntryPoint) -> Recipe[Any]:
    """Import a registered recipe.

    Raises:
        UserError: If it cannot be imported, or is no Recipe.
    """
    try:
        recipe = entry.load()
    except Exception as error:
        raise import_error(f"the recipe {entry.name}, registered as {entry.value},", error) from error
    if not isinstance(recipe, Recipe):
        raise UserError(f"the recipe {entry.name} is registered as {entry.value}, which is no Recipe.")
    return recipe


def recipe_of(made_by: RecipeIdentity, source: Path, named: Recipe[Any] | None = None) -> Recipe[Any]:
    """The recipe that made a run or a weights file.

    A file can say that any module made it, so no module is imported for its sake: a recipe counts if it is registered,
    or if the user has named it.

    Args:
        made_by: What the run says.
        source: The run's folder or the weights file, for the error.
        named: The recipe that is running, or that was named on the command line.

    Raises:
        UserError: If it is neither registered nor named, or another one is named.
    """
    if named is not None:
        if not made_by.is_of(named.identity):
            raise UserError(f"{source} was made by {made_by}, not by {named.identity}.")
        return named
    if (entry := _entry_of(made_by)) is not None:
        return load_registered(entry)
    raise UserError(f"{source} was made by {made_by}; add --recipe FILE_OR_MODULE if you trust it.")


def is_registered(made_by: RecipeIdentity) -> bool:
    """Whether a run needs no ``--recipe``."""
    return _entry_of(made_by) is not None


def name_for_commands(recipe: Recipe[Any]) -> str | None:
    """What ``--recipe`` has to say of a run of this recipe; None where it is registered."""
    identity = recipe.identity
    if _entry_of(identity) is not None:
        return None
    module, _, value = identity.reference.partition(":")
    place = module if identity.file is None else str(as_seen_from_here(Path(identity.file)))
    return place if value == "RECIPE" else f"{place}:{value}"


def _entry_of(made_by: RecipeIdentity) -> EntryPoint | None:
    entries = registered_recipes().values()
    return next((entry for entry in entries if made_by.reference in (entry.name, entry.value)), None)


def _load_file(path: Path) -> ModuleType:
    if isdir(path):  # noqa: PTH112
        raise UserError(f"{path} is a folder: name a registered recipe, a file (my_gan.py) or a module.")
    return load_code_file(path, what="recipe file")


def _import_module(name: str, named: str) -> ModuleType:
    if _may_be_a_module(name):
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            itself = missing is not None and f"{name}.".startswith(f"{missing}.")
            if not itself and failing_line(error) is not None:
                raise import_error(f"the module {name}", error) from error
    known = ", ".join(registered_recipes()) or "none is registered"
    beside = Path(f"{named}.py")
    is_file = isfile(beside)  # noqa: PTH113
    perhaps = f" Perhaps you meant the file {beside}." if is_file else perhaps_meant(named, registered_recipes())
    raise UserError(
        f"there is no recipe {shortened(named)}: name a registered one ({known}), a file or a module.{perhaps}"
    )


def _may_be_a_module(name: str) -> bool:
    """Whether it is worth an import, which runs code: Python's own modules hold no recipe."""
    parts = name.split(".")
    return all(part.isidentifier() for part in parts) and parts[0] not in sys.stdlib_module_names


def _recipe_in(module: ModuleType, value: str, named: str) -> Recipe[Any]:
    recipe = getattr(module, value, None)
    if not isinstance(recipe, Recipe):
        others = [name for name, thing in vars(module).items() if isinstance(thing, Recipe)]
        perhaps = f" It has {others[0]}: write {named.partition(':')[0]}:{others[0]}." if others else ""
        raise UserError(f"{named} is no recipe: the module has no {value} = Recipe(...).{perhaps}")
    return recipe
