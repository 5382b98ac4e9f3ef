"""Directions that import-linter cannot express; the others are contracts in pyproject.toml, checked by make lint."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "gan_blocks" / "engine"
LIBRARY = sorted(path for path in (ROOT / "gan_blocks").rglob("*.py") if not path.is_relative_to(ENGINE))
OUTSIDE = {"torch", "einops", "numpy"}


def imported_modules(source: str) -> Iterator[str]:
    """Yield the absolute name of every module that the source imports at any depth; of relative imports, the dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def top_level(module: str) -> str:
    return module.partition(".")[0]


def test_the_scan_sees_imports_of_every_form_and_at_every_depth():
    source = "import a.b, c\nfrom d.e import f\ndef g():\n    from . import h\n    import i as j\n"
    assert sorted(imported_modules(source)) == [".", "a.b", "c", "d.e", "i"]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_imports_nothing_but_torch_einops_numpy_and_the_standard_library(path: Path):
    allowed = OUTSIDE | sys.stdlib_module_names | {"gan_blocks"}
    assert {top_level(module) for module in imported_modules(path.read_text())} <= allowed


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_of_the_library_import_names_from_where_they_are_defined(path: Path):
    """Not from the package itself, which imports them all: that would be a cycle."""
    assert "gan_blocks" not in set(imported_modules(path.read_text()))
    assert not any(module.startswith(".") for module in imported_modules(path.read_text()))


PACKAGES = sorted(path.parent for path in (ROOT / "gan_blocks").rglob("__init__.py"))
EXPORTING = [path for path in PACKAGES if path in (ROOT / "gan_blocks", ENGINE) or path.parent == ENGINE]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_holds_a_docstring_and_the_names_that_it_exports(package: Path):
    """A part such as ``gan_blocks.layers`` exports none, so that every name has one public path."""
    body = ast.parse((package / "__init__.py").read_text()).body
    kinds = {ast.Expr, ast.ImportFrom, ast.Assign} if package in EXPORTING else {ast.Expr}
    assert {type(node) for node in body} <= kinds
    assigned = {target.id for node in body if isinstance(node, ast.Assign) for target in node.targets}
    assert assigned <= {"__all__", "__version__"}


def test_every_name_has_one_public_path():
    names = [
        name
        for package in EXPORTING
        for name in importlib.import_module(".".join(package.relative_to(ROOT).parts)).__dict__.get("__all__", [])
    ]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ENGINE.rglob("*.py")) if not path.name.startswith("__")],
    ids=lambda path: str(path.relative_to(ENGINE)),
)
def test_every_module_of_the_engine_names_the_file_that_tests_it(path: Path):
    named = re.search(r"^Tested in ``(tests/[\w/]+\.py)``", ast.get_docstring(ast.parse(path.read_text())) or "", re.M)
    assert named, "the docstring has no line `Tested in ...`"
    assert (ROOT / named[1]).is_file()
    own = ROOT / "tests" / path.relative_to(ROOT / "gan_blocks").with_name(f"test_{path.name}")
    assert not own.exists() or own == ROOT / named[1]
