"""The built documentation as a reader's browser shows it."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import THEMES, WIDTHS, complaints, misplaced, requested, show

pytestmark = pytest.mark.slow

CONTENT = "article, header"
DRAWERS = ".sidebar-drawer, .toc-drawer"  # closed in narrower windows than the widest


def pages(folder: Path, *, reference: bool) -> list[str]:
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.html"))
    return [name for name in found if name.startswith("api/generated") == reference and not name.startswith("_")]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("reference", [False, True], ids=["guide", "reference"])
def test_every_page_fits_into_every_window_and_asks_nobody(
    browser: Any, site: str, built_docs: Path, reference: bool, theme: str
):
    names = pages(built_docs, reference=reference)
    assert len(names) > 30
    problems = {}
    requested(browser)
    complaints(browser)
    for name in names:
        show(browser, width=WIDTHS[0], theme=theme)
        browser.get(f"{site}/{name}")
        for width in WIDTHS:
            show(browser, width=width, theme=theme)
            if found := misplaced(browser, f"{CONTENT}, {DRAWERS}" if width == max(WIDTHS) else CONTENT):
                problems[name, width] = found
        # The theme draws a list of contents within a page as an error; it has its own beside the page.
        if marked := browser.find_elements("css selector", "article .contents, article .problematic"):
            problems[name, "marked as wrong"] = [element.text for element in marked]
        if said := complaints(browser):
            problems[name, "console"] = said
    assert problems == {}
    assert {url for url in requested(browser) if not url.startswith(site)} == set()


def color(browser: Any, name: str) -> list[int]:
    """Red, green and blue of a color of the page's body, from 0 to 255."""
    script = "return getComputedStyle(document.body)[arguments[0]].match(/\\d+/g).slice(0, 3).map(Number)"
    found: list[int] = browser.execute_script(script, name)
    return found


@pytest.mark.parametrize("theme", THEMES)
def test_the_reader_chooses_the_colors(browser: Any, site: str, theme: str):
    show(browser, width=1000, theme=theme)
    browser.get(f"{site}/index.html")
    paper, ink = sum(color(browser, "backgroundColor")), sum(color(browser, "color"))
    assert (paper > ink) == (theme == "light")
    assert abs(paper - ink) > 400


@pytest.mark.parametrize("word", ["initialization", "initialisation"])
def test_search_finds_american_and_british_words(browser: Any, site: str, word: str):
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, width=1000)
    browser.get(f"{site}/search.html?q={word}")
    link = "#search-results a[href*='init_orthogonal_']"
    assert WebDriverWait(browser, 20).until(lambda driver: driver.find_elements("css selector", link))
    assert complaints(browser) == []


COPIED = {
    "index.html": ("import torch", "from torch import nn"),  # a session: without its prompts and without what it shows
    "install.html": ("make demo",),
}


@pytest.mark.parametrize("page", COPIED)
def test_the_copy_button_copies_what_one_types(browser: Any, site: str, page: str):
    show(browser, width=1000)
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    browser.execute_cdp_cmd("Browser.grantPermissions", {"origin": site, "permissions": permissions})
    browser.get(f"{site}/{page}")
    button = browser.find_elements("css selector", "div.highlight button.copybtn")[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()
    copied = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0], arguments[0])")
    assert tuple(copied.splitlines()[: len(COPIED[page])]) == COPIED[page]
    assert not any(sign in copied for sign in (">>>", "$", "torch.Size([4])"))
