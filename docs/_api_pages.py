"""Writes one page of the API reference per part of the library, from the public names themselves.

A name that ``gan_blocks/__init__.py`` exports appears without any edit here: under its part (``layers``, ``losses``)
and, there, under the module that defines it. The words come from the docstrings of both.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

__all__ = ["home_modules", "part_page", "write_pages"]


def home_modules(package: ModuleType) -> dict[str, list[str]]:
    """Map each module that defines public names to those names, both in alphabetical order.

    A name whose value does not know its module, such as a constant, belongs to the first module that exports it.
    """
    modules = [importlib.import_module(info.name) for info in pkgutil.walk_packages(package.__path__, "gan_blocks.")]
    homes: dict[str, list[str]] = {}
    for name in sorted(package.__all__):
        exporting = [module.__name__ for module in modules if name in getattr(module, "__all__", ())]
        defining = getattr(getattr(package, name), "__module__", None)
        for home in [defining] if defining in exporting else exporting[:1]:
            homes.setdefault(home, []).append(name)
    return dict(sorted(homes.items()))


def part_page(part: str, homes: dict[str, list[str]]) -> str:
    """Return the page of one part, such as ``gan_blocks.layers``."""
    blocks = [heading(part.rpartition(".")[2], "="), ".. currentmodule:: gan_blocks"]
    blocks.append(inspect.getdoc(importlib.import_module(part)) or "")
    for module, names in homes.items():
        if module == part or module.startswith(f"{part}."):
            blocks += [heading(module.rpartition(".")[2], "-"), first_paragraph(module), table(names)]
    return "\n\n".join(blocks) + "\n"


def write_pages(folder: Path, homes: dict[str, list[str]]) -> None:
    """Write the pages of all parts into ``folder`` and remove what earlier names left there."""
    pages = {f"{part.rpartition('.')[2]}.rst": part_page(part, homes) for part in sorted(map(part_of, homes))}
    stubs = {f"gan_blocks.{name}.rst" for names in homes.values() for name in names}
    for old in [*folder.glob("*.rst"), *folder.glob("names/*.rst")]:
        if old.name not in (stubs if old.parent.name == "names" else pages):
            old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        page = folder / name
        if not page.exists() or page.read_text() != text:  # an unchanged page is not built again
            page.write_text(text)


def part_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def heading(text: str, underline: str) -> str:
    return f"{text}\n{underline * len(text)}"


def first_paragraph(module: str) -> str:
    return (inspect.getdoc(importlib.import_module(module)) or "").split("\n\n")[0]


def table(names: list[str]) -> str:
    rows = "\n".join(f"   {name}" for name in names)
    return f".. autosummary::\n   :toctree: names\n   :nosignatures:\n\n{rows}"
