"""Equations as MathML, which browsers draw by themselves: the pages need no script and no network to be read.

docutils translates the usual LaTeX; a command that it does not know is a warning, and so an error in ``make docs``.

Tested in ``tests/test_formulas.py``.
"""

import html
import re
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

# Ways to write that docutils does not know, and what it draws alike.
SYNONYMS = (
    (re.compile(r"\\(big|Big|bigg|Bigg)(?![A-Za-z])"), r"\\\1l"),
    (re.compile(r"\\dots(?![A-Za-z])"), r"\\ldots"),
    (re.compile(r"\\textstyle(?![A-Za-z])"), ""),
)

# Signs above a letter: what docutils writes, and what math fonts have.
ACCENTS = {"ˉ": "¯", "_": "¯", "\u02c6": "^", "~": "~", "˙": "˙", "→": "→"}

logger = logging.getLogger(__name__)


def mathml(node: nodes.Element, *, as_block: bool) -> str:
    latex = node.astext()
    for pattern, replacement in SYNONYMS:
        latex = pattern.sub(replacement, latex)
    try:
        return redrawn(str(tex2mathml(latex, as_block=as_block)))
    except MathError as error:
        logger.warning("%s, in the equation %s", error, node.astext(), location=node)
        return f"<code>{nodes.unescape(node.astext())}</code>"


def redrawn(equation: str) -> str:
    """Mend what docutils draws wrong: bars without ink, and the index of an accented letter under the letter."""
    ElementTree.register_namespace("", "http://www.w3.org/1998/Math/MathML")
    # XML knows five names of signs, HTML all that docutils writes.
    root = ElementTree.fromstring(re.sub(r"&(?!(?:amp|lt|gt);)\w+;", lambda found: html.unescape(found[0]), equation))
    for element in root.iter():
        kind, children = element.tag.rpartition("}")[2], list(element)
        if kind not in ("mover", "munderover") or (children[-1].text or "") not in ACCENTS:
            continue
        sign = children[-1]
        # A bar over several letters is as long as they are.
        sign.set("stretchy", "true" if sign.text == "_" else "false")
        sign.text = ACCENTS[sign.text or ""]
        if kind == "munderover":
            base, index = children[:2]
            for child in children:
                element.remove(child)
            letter = ElementTree.SubElement(element, element.tag.replace("munderover", "mover"), accent="true")
            letter.extend([base, sign])
            element.append(index)
            element.tag = element.tag.replace("munderover", "msub")
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def visit_math(writer: Any, node: nodes.Element) -> None:
    writer.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_displaymath(writer: Any, node: nodes.Element) -> None:
    # A long equation scrolls sideways within the text; the padding keeps tall signs from being cut.
    box = '<div class="math" style="overflow: auto hidden; padding: 0.5em 0">'
    writer.body.append(f"{box}{mathml(node, as_block=True)}</div>\n")
    raise nodes.SkipNode


def check(_app: Any, doctree: nodes.document, _name: str) -> None:
    """Find errors in equations when a page is read, whatever is made of it."""
    for node in doctree.findall(lambda node: isinstance(node, (nodes.math, nodes.math_block))):
        mathml(node, as_block=isinstance(node, nodes.math_block))


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-resolved", check)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
