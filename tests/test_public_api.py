"""What holds for every public name: exported once, documented, in the API reference, and never changed silently."""

import importlib.util
import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import gan_blocks
from tests.golden.update import GOLDEN, describe_public_api

DOCS = Path(__file__).parents[1] / "docs"
THINGS = [getattr(gan_blocks, name) for name in gan_blocks.__all__ if callable(getattr(gan_blocks, name))]
every_public_name = pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__)


def docstring(thing: Any) -> str:
    """Its own docstring, not one that it inherits."""
    return inspect.cleandoc(vars(thing).get("__doc__") or "") if inspect.isclass(thing) else inspect.getdoc(thing) or ""


def section(text: str, title: str) -> str:
    """The indented lines below a title of a google-style docstring."""
    found = re.search(rf"^{title}:\n((?:[ \t]+.*\n|\n)+)", text + "\n", re.MULTILINE)
    return found[1] if found else ""


def is_named_tuple(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, tuple)


def handles_tensors(thing: Any) -> bool:
    """Whether a tensor goes in or out: by the annotations of a function, by having a ``forward`` for a module."""
    if inspect.isclass(thing):
        return "forward" in vars(thing)
    hints = [parameter.annotation for parameter in inspect.signature(thing).parameters.values()]
    return torch.Tensor in [*hints, inspect.signature(thing).return_annotation]


def own_docstrings(thing: Any) -> list[str]:
    methods = [value for value in vars(thing).values() if inspect.isroutine(value)] if inspect.isclass(thing) else []
    return [docstring(thing), *(inspect.getdoc(method) or "" for method in methods)]


def test_exports_are_sorted_and_unique():
    assert gan_blocks.__all__ == sorted(set(gan_blocks.__all__))


def test_every_export_is_exported_by_the_module_that_defines_it_too():
    pages = api_pages().home_modules(gan_blocks)
    homes = [name for names in pages.values() for name in names]
    assert sorted(homes) == gan_blocks.__all__


@every_public_name
def test_the_docstring_starts_with_one_sentence_on_one_line(thing: Any):
    summary, *rest = docstring(thing).split("\n")
    assert re.fullmatch(r"\S.{10,}\.", summary)
    assert not rest or rest[0] == ""


@every_public_name
def test_the_docstring_describes_every_argument(thing: Any):
    if getattr(thing, "_is_protocol", False):
        return  # it is written by others, and made with what they like
    if is_named_tuple(thing):
        source, described = inspect.getsource(thing), section(docstring(thing), "Attributes")
        for field in thing._fields:
            below = re.search(rf'^\s+{field}: .*\n\s+"""\S', source, re.MULTILINE)
            assert below or re.search(rf"^\s+{field}: \S", described, re.MULTILINE), field
        return
    described = section(docstring(thing), "Args")
    for name in inspect.signature(thing).parameters:
        assert re.search(rf"^\s+(\\?\*)*{name}: \S", described, re.MULTILINE), name


@every_public_name
def test_the_docstring_gives_the_shapes_of_tensors(thing: Any):
    if handles_tensors(thing):
        assert "``" in section(docstring(thing), "Shape")


@every_public_name
def test_the_docstring_names_the_errors_that_the_code_raises(thing: Any):
    raises = re.search(r"^\s+(raise \w|check_\w+\()", inspect.getsource(inspect.unwrap(thing)), re.MULTILINE)
    if raises and not is_named_tuple(thing):
        assert any(re.search(r"\w+Error: \S", section(text, "Raises")) for text in own_docstrings(thing))


@every_public_name
def test_the_docstring_shows_an_example_that_doctest_runs(thing: Any):
    if not is_named_tuple(thing) and not inspect.isabstract(thing):
        assert any(">>> " in section(text, "Example") for text in own_docstrings(thing))


def api_pages() -> ModuleType:
    """The module that writes the reference pages; docs/ is no package."""
    spec = importlib.util.spec_from_file_location("_api_pages", DOCS / "_api_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_has_one_entry_in_the_api_reference(tmp_path: Path):
    pages = api_pages()
    pages.write_pages(tmp_path, pages.home_modules(gan_blocks))
    listed = [line for page in tmp_path.glob("*.rst") for line in page.read_text().splitlines()]
    for name in gan_blocks.__all__:
        assert listed.count(f"   {name}") == 1


def test_pages_of_names_that_are_gone_are_removed(tmp_path: Path):
    (tmp_path / "names").mkdir()
    for name in ("gone.rst", "names/gan_blocks.gone.rst", "names/gan_blocks.hinge_generator_loss.rst"):
        (tmp_path / name).touch()
    pages = api_pages()
    pages.write_pages(tmp_path, {"gan_blocks.losses.adversarial": {"hinge_generator_loss": "gan_blocks"}})
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.rst"))
    assert left == ["losses.rst", "names/gan_blocks.hinge_generator_loss.rst"]


def test_the_public_interface_is_the_recorded_one():
    """If a change is meant, ``python -m tests.golden.update`` records it; commit the diff."""
    assert describe_public_api() == json.loads(GOLDEN.read_text())
