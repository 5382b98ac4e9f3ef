"""The report of a run as a browser shows it, from the file itself."""

from typing import Any

import pytest

from recipes import biggan_deep
from tests.browser.chromium import THEMES, WIDTHS, complaints, misplaced, requested, show
from tests.conftest import TINY_NETWORK, write_tiny_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a run that has everything that a report may show."""
    folder = tmp_path_factory.mktemp("reported")
    often = [word for name in ("spectra", "evaluate", "sample") for word in (f"--{name}-every", "2")]
    args = ["--data", f"npz:{write_tiny_data(folder)}", *TINY_NETWORK, *often, "--r1-penalty", "0.1"]
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(folder / "run"), "--steps", "4"]) == 0
    return (folder / "run" / "report.html").as_uri()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_asks_nobody(browser: Any, report: str, width: int, theme: str):
    requested(browser)
    complaints(browser)
    show(browser, width=width, theme=theme)
    browser.get(report)
    assert misplaced(browser, "body") == []
    assert requested(browser) == {report}
    assert complaints(browser) == []
    pictures = browser.find_elements("css selector", "img")
    assert len(pictures) == 3
    assert all(browser.execute_script("return arguments[0].naturalWidth", picture) > 0 for picture in pictures)


def test_its_text_can_be_read_in_the_dark(browser: Any, report: str):
    show(browser, width=1000, theme="dark")
    browser.get(report)
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]].match(/\\d+/g).map(Number)"
    paper = sum(browser.execute_script(script, "body", "backgroundColor")[:3])
    for place in ("h1", "td", "svg text"):
        name = "fill" if place == "svg text" else "color"
        assert sum(browser.execute_script(script, place, name)[:3]) - paper > 300, place
