"""Writes one page of the API reference per part of the library and of the engine, from the public names themselves.

A name that ``gan_blocks/__init__.py`` or ``gan_blocks/engine/__init__.py`` exports appears without any edit here: under
its part (``layers``, ``losses``) and, there, under the module that defines it. The words come from the docstrings of
both.
"""

import ast
import importlib
import inspect
import itertools
import pkgutil
from pathlib import Path
from types import ModuleType

__all__ = ["home_modules", "part_page", "write_pages"]


def home_modules(package: ModuleType) -> dict[str, list[str]]:
    """Map each module that defines public names to those names, both in alphabetical order.

    A name whose value does not know its module, such as a constant, belongs to the first module that exports it.
    """
    names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    # What a package below exports from its own __init__, as the engine does, has pages of its own.
    modules = [importlib.import_module(name) for name in names if not _belongs_elsewhere(name, package)]
    homes: dict[str, list[str]] = {}
    for name in sorted(package.__all__):
        exporting = [module.__name__ for module in modules if name in getattr(module, "__all__", ())]
        defining = getattr(getattr(package, name), "__module__", None)
        for home in [defining] if defining in exporting else exporting[:1]:
            homes.setdefault(home, []).append(name)
    return dict(sorted(homes.items()))


def _belongs_elsewhere(module: str, package: ModuleType) -> bool:
    return (package.__name__ == "gan_blocks" and f"{module}.".startswith("gan_blocks.engine.")) or (
        module.rpartition(".")[2] == "__main__"
    )


def part_page(part: str, homes: dict[str, list[str]]) -> str:
    """Return the page of one part, such as ``gan_blocks.layers``."""
    blocks = [heading(part.rpartition(".")[2], "="), f".. currentmodule:: {part.rpartition('.')[0]}"]
    blocks.append(inspect.getdoc(importlib.import_module(part)) or "")
    for module, names in homes.items():
        if module == part or module.startswith(f"{part}."):
            constants = [name for name in names if not callable(getattr(importlib.import_module(module), name))]
            blocks += [heading(module.rpartition(".")[2], "-"), first_paragraph(module)]
            blocks += [table([name for name in names if name not in constants])] if len(names) > len(constants) else []
            blocks += [f".. py:data:: {name}\n\n   {constant_text(module, name)}" for name in constants]
    return "\n\n".join(blocks) + "\n"


def write_pages(folder: Path, homes: dict[str, list[str]]) -> None:
    """Write the pages of all parts into ``folder`` and remove what earlier names left there."""
    parts = sorted({part_of(module) for module in homes})
    pages = {f"{part.rpartition('.')[2]}.rst": part_page(part, homes) for part in parts}
    stubs = {f"{part_of(module).rpartition('.')[0]}.{name}.rst" for module, names in homes.items() for name in names}
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


def first_paragraph(module: str) -> str:
    return (inspect.getdoc(importlib.import_module(module)) or "").split("\n\n")[0]


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
