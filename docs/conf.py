"""Settings of the documentation. Nothing here reaches the network: no inventories of other projects are fetched."""

import builtins
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from _api_pages import home_modules, write_pages
from _types import public_module, type_formatter

import gan_blocks
import gan_blocks.engine

# sphinx-autodoc-typehints still calls a function that Sphinx 10 will drop; its users can do nothing about it.
warnings.filterwarnings("ignore", message=r"'sphinx_autodoc_typehints.* is deprecated")

project = "gan_blocks"
author = "the gan_blocks authors"
version = release = gan_blocks.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx.ext.napoleon",  # before the type hints, which it must have split from the text first
    "sphinx_autodoc_typehints",
    "myst_parser",
    "sphinx_copybutton",
    "_mathml",
    "_words",
]
exclude_patterns = ["_build", "_templates", "inventories"]
templates_path = ["_templates"]
# The function below makes the settings unfit for Sphinx's cache, which costs nothing but a second.
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_favicon = "_static/favicon.svg"  # else browsers ask for one that is not there
html_title = f"gan_blocks {release}"
html_show_sourcelink = False
html_show_copyright = False
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_preserve_defaults = True  # `nn.Conv2d` as written, not <class 'torch.nn.modules.conv.Conv2d'>
autodoc_inherit_docstrings = False  # torch's own docstrings refer to pages that are not ours
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shape", "Differences from the paper"]
always_use_bars_union = True
typehints_use_rtype = False
typehints_fixup_module_name = public_module

# Lists of the names that the reference mentions, written by hand: nothing is fetched.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.inv"),
    "torch": ("https://docs.pytorch.org/docs/stable", "inventories/torch.inv"),
}

# What the docstrings may name without a page here to link to.
nitpick_ignore_regex = [
    (r"py:.*", r"(nn|F|numpy|np|einops|matplotlib|tyro|types|os|torch\.distributed|typing\.Annotated.*)\..*"),
    (r"py:.*", r"gan_blocks\.engine\.\w+\..*|lambda"),  # modules of the engine, whose public names are further up
    (r"py:.*", "|".join(name for name in dir(builtins) if not name.startswith("_"))),
]


def generated_pages(folder: str) -> list[Path]:
    return sorted((Path(__file__).parent / "api" / folder).glob("*.rst"))


def keep_colons(_app: Any, what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    """Napoleon would take what stands before a colon for the type of an attribute; it looks at the first line alone."""
    if what in ("attribute", "property"):
        lines.insert(0, "\\")  # which reStructuredText joins with the next line, leaving nothing


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # napoleon's is 500


PUBLIC_NAMES = {"generated": home_modules(gan_blocks), "generated/engine": home_modules(gan_blocks.engine)}
for folder, homes in PUBLIC_NAMES.items():
    write_pages(Path(__file__).parent / "api" / folder, homes)
# By their names, since Sphinx would leave out those that were not there at the last build.
autosummary_generate = [f"api/{folder}/{page.name}" for folder in PUBLIC_NAMES for page in generated_pages(folder)]
typehints_formatter = type_formatter(PUBLIC_NAMES)
# The library's own names come last, so that they stand where the engine has the same.
linked_names = {
    name: f"{package}.{name}"
    for homes in reversed(PUBLIC_NAMES.values())
    for names in homes.values()
    for name, package in names.items()
}
