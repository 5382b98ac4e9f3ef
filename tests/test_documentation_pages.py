"""What the documentation's own extensions do: types, links of names, words to be found by; and the pages that come out.

The pages are built once for all slow tests; it takes minutes.
"""

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import pytest
from docutils import nodes
from sphinx.addnodes import pending_xref
from torch import Tensor, nn

import gan_blocks
import gan_blocks.engine

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
UNBOUND, BOUND = TypeVar("UNBOUND"), TypeVar("BOUND", bound=nn.Module)
EITHER = TypeVar("EITHER", int, dict[str, Tensor])


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of docs/, which is no package."""
    monkeypatch.syspath_prepend(str(DOCS))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (BOUND, ":py:class:`~torch.nn.Module`"),
        (UNBOUND, "``UNBOUND``"),
        (EITHER, r":py:class:`int` | :py:class:`dict`\ \[:py:class:`str`, :py:class:`~torch.Tensor`]"),
        (type[BOUND], r":py:class:`type`\ \[:py:class:`~torch.nn.Module`]"),
        (nn.Module, ":py:class:`~torch.nn.Module`"),
    ],
)
def test_a_type_that_stands_for_others_is_shown_as_what_it_allows(extension, annotation: Any, shown: str):
    types = extension("_types")
    config = SimpleNamespace(
        typehints_formatter=types.type_formatter({}),
        typehints_fixup_module_name=types.public_module,
        typehints_fully_qualified=False,
        always_use_bars_union=True,
    )
    from sphinx_autodoc_typehints import format_annotation

    assert format_annotation(annotation, config) == shown


def test_every_public_constant_has_its_text(extension):
    pages = extension("_api_pages")
    homes = [pages.home_modules(package) for package in (gan_blocks, gan_blocks.engine)]
    constants = [
        (module, name)
        for modules in homes
        for module, names in modules.items()
        for name, package in names.items()
        if pages.is_constant(package, name)
    ]
    assert constants
    assert [about for about in constants if not pages.constant_text(*about)] == []


def test_every_public_name_of_the_engine_has_its_page(extension):
    homes = extension("_api_pages").home_modules(gan_blocks.engine)
    assert set(gan_blocks.engine.__all__) <= {name for names in homes.values() for name in names}


def test_a_public_name_in_a_sentence_becomes_a_link_and_nothing_else_does(extension):
    document = nodes.section()
    title, sentence = nodes.title(), nodes.paragraph()
    title += nodes.literal("", "spectral_norm")
    sentence += [nodes.literal("", text) for text in ("spectral_norm", "gan_blocks.Prior", "spectral_norm(layer)")]
    document += [title, sentence]
    names = {"spectral_norm": "gan_blocks.spectral_norm", "Prior": "gan_blocks.Prior"}
    extension("_words").link_names(document, "page", names)
    links = list(document.findall(pending_xref))
    assert [link["reftarget"] for link in links] == ["gan_blocks.spectral_norm", "gan_blocks.Prior"]
    assert [link.astext() for link in links] == ["spectral_norm", "gan_blocks.Prior"]
    assert all(link.parent is sentence for link in links)


def test_american_words_have_their_british_spelling(extension):
    text = "Initialization normalizes what was Regularized; a size, a prize and a horizon stay."
    assert extension("_words").british(text) == {"initialisation", "normalises", "regularised"}


@pytest.mark.slow
def test_no_type_and_no_description_of_the_reference_is_empty(built_docs: Path):
    pages = sorted((built_docs / "api").rglob("*.html"))
    assert pages
    empty = re.compile(
        r"<dd>\s*</dd>|<dd><p>\s*</p>\s*</dd>"  # a description
        r"|<code[^>]*>\s*(?:<span[^>]*>\s*</span>)?\s*</code>"  # a type
        r"|</strong>\s*\(\s*\)"  # the parentheses for the type of an argument
    )
    assert {page.name: found[0] for page in pages if (found := empty.search(page.read_text()))} == {}


@pytest.mark.slow
def test_every_class_and_function_of_the_reference_leads_to_its_source(built_docs: Path):
    for name in gan_blocks.__all__:
        page = built_docs / "api" / "generated" / "names" / f"gan_blocks.{name}.html"
        assert "viewcode-link" in page.read_text(), name


@pytest.mark.slow
def test_search_finds_both_spellings(built_docs: Path):
    index = json.loads((built_docs / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    terms = index["terms"]
    from sphinx.search.en import SearchEnglish

    stem = SearchEnglish({}).stem
    pages = index["docnames"]
    for word in ("initialization", "initialisation"):
        found = terms.get(stem(word), [])
        names = [pages[number] for number in (found if isinstance(found, list) else [found])]
        assert "api/generated/names/gan_blocks.init_orthogonal_" in names, word


@pytest.mark.slow
def test_types_of_torch_lead_to_its_documentation(built_docs: Path):
    page = (built_docs / "api" / "generated" / "names" / "gan_blocks.spectral_norm.html").read_text()
    assert "https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module" in page
