"""Writes one page of the API reference per part of the library and of the engine, from the public names themselves.

A name that the ``__init__.py`` of the library, of the engine or of a part of the engine exports appears without any
edit here: under its part (``layers``, ``losses``) and, there, under the module that defines it. The words come from the
docstrings of both.
"""

import ast
import importlib
import inspect
import itertools
import pkgutil
from pathlib import Path
from types import ModuleType

from gan_blocks.engine.base.terminal.command_line import without_notes

__all__ = ["home_modules", "part_page", "write_pages"]


def home_modules(package: ModuleType) -> dict[str, dict[str, str]]:
    """Map each module that defines public names to those names, and each name to the package that exports it.

    All in alphabetical order. A name whose value does not know its module, such as a constant, belongs to the first
    module that exports it, and one that no module exports to the module that defines its value.
    """
    below = [importlib.import_module(name) for name in _modules_below(package)]
    homes: dict[str, dict[str, str]] = {}
    for exporter in (package, *(module for module in below if hasattr(module, "__path__"))):
        modules = [module for module in below if not hasattr(module, "__path__")]
        for name in sorted(getattr(exporter, "__all__", ())):
            exporting = [module.__name__ for module in modules if name in getattr(module, "__all__", ())]
            defining = getattr(getattr(exporter, name), "__module__", None)
            for home in [defining] if defining in exporting or not exporting else exporting[:1]:
                homes.setdefault(home, {})[name] = exporter.__name__
    return {module: dict(sorted(names.items())) for module, names in sorted(homes.items())}


def _modules_below(package: ModuleType) -> list[str]:
    """The engine has pages of its own, so the library's have none of it."""
    names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    with_engine = package.__name__ != "gan_blocks"
    return [name for name in names if (with_engine or ".engine" not in name) and not name.endswith("__main__")]


def part_page(part: str, homes: dict[str, dict[str, str]]) -> str:
    """Return the page of one part, such as ``gan_blocks.layers``."""
    blocks = [heading(part.rpartition(".")[2], "="), inspect.getdoc(importlib.import_module(part)) or ""]
    for module, names in homes.items():
        if module == part or module.startswith(f"{part}."):
            blocks += [heading(module.rpartition(".")[2], "-"), introduction(module)]
            for package in sorted(set(names.values())):
                blocks += names_block(module, package, [name for name in names if names[name] == package])
    return "\n\n".join(blocks) + "\n"


def names_block(module: str, package: str, names: list[str]) -> list[str]:
    """What one module contributes to the public names of one package."""
    constants = [name for name in names if is_constant(package, name)]
    blocks = [f".. currentmodule:: {package}"]
    blocks += [f"From ``{package}``:"] if package.count(".") == 2 else []
    blocks += [table([name for name in names if name not in constants])] if len(names) > len(constants) else []
    return blocks + [f".. py:data:: {name}\n\n   {constant_text(module, name)}" for name in constants]


def is_constant(package: str, name: str) -> bool:
    """Whether a public name is neither a class nor a function: all that is known of it is the text below it.

    An alias of a type has a docstring, but one that says what aliases are.
    """
    value = getattr(importlib.import_module(package), name)
    return not (inspect.isclass(value) or inspect.isroutine(value))


def write_pages(folder: Path, homes: dict[str, dict[str, str]]) -> None:
    """Write the pages of all parts into ``folder`` and remove what earlier names left there."""
    parts = sorted({part_of(module) for module in homes})
    pages = {f"{part.rpartition('.')[2]}.rst": part_page(part, homes) for part in parts}
    stubs = {
        f"{package}.{name}.rst"
        for names in homes.values()
        for name, package in names.items()
        if not is_constant(package, name)
    }
    for old in [*folder.glob("*.rst"), *folder.glob("names/*.rst")]:
        if old.name not in (stubs if old.parent.name == "names" else pages):
            old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        page = folder / name
        if not page.exists() or page.read_text() != text:  # an unchanged page is not built again
            page.write_text(text)


def part_of(module: str) -> str:
    """The part that a module lies in: ``gan_blocks.layers``, or ``gan_blocks.engine.data`` in the engine."""
    return ".".join(module.split(".")[: 3 if module.startswith("gan_blocks.engine.") else 2])


def heading(text: str, underline: str) -> str:
    return f"{text}\n{underline * len(text)}"


def introduction(module: str) -> str:
    return without_notes(inspect.getdoc(importlib.import_module(module)) or "")


def constant_text(module: str, name: str) -> str:
    """The string below a constant in the source of its module, which is nowhere else."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for statement, following in itertools.pairwise(body):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            text = ast.literal_eval(following.value) if isinstance(following, ast.Expr) else ""
            return " ".join(str(text).split())
    return ""


def table(names: list[str]) -> str:
    rows = "\n".join(f"   {name}" for name in names)
    return f".. autosummary::\n   :toctree: names\n   :nosignatures:\n\n{rows}"
