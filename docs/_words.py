"""What pages get without an edit: links of the names that they mention, and words to be found by.

A public name in a guide, `` `spectral_norm` `` by itself, leads to its page of the reference. A page is found by the
British spelling of its words, too.

Tested in ``tests/test_documentation_pages.py``.
"""

import re
from collections.abc import Mapping
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref

__all__ = ["british", "link_names", "setup"]

# Within these a link would be lost, or lie in another one.
NO_LINKS = (nodes.title, nodes.reference, pending_xref, nodes.rubric)

AMERICAN = re.compile(r"\b([a-z]{3,})(iz)(e|ed|er|ers|es|ing|ation|ations)\b", re.IGNORECASE)


def british(text: str) -> set[str]:
    """The British spellings of the words in a text that have one in -ise: "initialisation" of "initialization"."""
    return {f"{stem}is{end}".lower() for stem, _, end in AMERICAN.findall(text)}


def link_names(document: nodes.Element, page: str, names: Mapping[str, str]) -> None:
    """Make each literal that is one of the names a reference to what stands for it."""
    for literal in list(document.findall(nodes.literal)):
        target = names.get(literal.astext().removeprefix("gan_blocks."))
        if target is None or any(isinstance(parent, NO_LINKS) for parent in parents(literal)):
            continue
        about = {"refdomain": "py", "reftype": "obj", "reftarget": target, "refdoc": page, "refwarn": True}
        link = pending_xref("", **about, refexplicit=True)
        literal.replace_self(link)
        link += literal


def parents(node: nodes.Node) -> list[nodes.Node]:
    return [node.parent, *parents(node.parent)] if node.parent is not None else []


def on_read(app: Any, document: nodes.document) -> None:
    page = app.env.docname
    if not page.startswith("api/"):
        link_names(document, page, app.config.linked_names)
    words = british(document.astext())
    if words:
        document.insert(0, nodes.meta("", name="keywords", content=", ".join(sorted(words))))


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("linked_names", {}, "env")
    app.connect("doctree-read", on_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
