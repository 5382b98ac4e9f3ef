"""How the documentation draws its equations."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from docutils import nodes

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "developing").glob("*.md")])
XML = "{http://www.w3.org/1998/Math/MathML}"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.delitem(sys.modules, "_mathml", raising=False)
    from _mathml import mathml

    return lambda latex: ElementTree.fromstring(mathml(nodes.math(latex, latex), as_block=False))


def shape(element: ElementTree.Element) -> str:
    """An equation in one line: names of elements, their children in parentheses."""
    inner = ", ".join(map(shape, element)) or (element.text or "").strip()
    return f"{element.tag.removeprefix(XML)}({inner})"


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        (r"\bar W", "mover(mi(W), mo(¯))"),
        (r"\hat x", "mover(mi(x), mo(^))"),
        (r"\hat x_i", "msub(mover(mi(x), mo(^)), mi(i))"),
        (r"\tilde x_i^2", "msup(msub(mover(mi(x), mo(~)), mi(i)), mn(2))"),
        (r"\overline{a b}", "mover(mrow(mi(a), mi(b)), mo(¯))"),
        (r"\sum_i^n", "munderover(mo(∑), mi(i), mi(n))"),
        (r"\operatorname{conv} x", "mi(conv), mo(\u2061), mi(x)"),
        (r"\max_i", "munder(mo(max), mi(i))"),
    ],
)
def test_accents_have_ink_and_stand_above_their_letter_alone(drawn, latex: str, expected: str):
    assert shape(drawn(latex)) == f"math({expected})"


def test_a_bar_is_as_long_as_what_it_is_over(drawn):
    signs = [drawn(latex).find(f".//{XML}mo").get("stretchy") for latex in (r"\bar W", r"\overline{a b}")]
    assert signs == ["false", "true"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_equation_in_a_table_has_a_sign_that_ends_its_cell(page: Path):
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert not [row for row in rows if any(r"\|" in equation for equation in re.findall(r"\$[^$]+\$", row))]
