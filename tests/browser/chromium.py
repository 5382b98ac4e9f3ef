"""A headless Chromium that tests drive, and the questions that they ask of a page."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTHS = (400, 1000, 1600)
THEMES = ("light", "dark")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# What sticks out of the window, unless it is in a box that scrolls, and boxes that cut their text off.
MISPLACED = """
const scrolls = element => ['auto', 'scroll'].includes(getComputedStyle(element).overflowX);
const name = element => element.tagName.toLowerCase() + [...element.classList].map(each => '.' + each).join('');
const found = [];
if (document.documentElement.scrollWidth > innerWidth) found.push('the page scrolls sideways');
const visit = element => {
  const style = getComputedStyle(element), box = element.getBoundingClientRect();
  if (style.display === 'none' || style.visibility === 'hidden' || !box.width || !box.height) return;
  if (box.right > innerWidth + 1 || box.left < -1) return void found.push(name(element) + ' sticks out');
  const hides = ['hidden', 'clip'].includes(style.overflowX) && box.width > 1;  // 1: for screen readers alone
  const beyond = inner => inner.innerText && inner.getBoundingClientRect().right > box.right + 1;
  if (hides && [...element.querySelectorAll('*')].some(beyond)) found.push(name(element) + ' cuts its text');
  if (scrolls(element) || element instanceof SVGElement) return;
  for (const child of element.children) visit(child);
};
for (const root of document.querySelectorAll(arguments[0])) visit(root);
return [...new Set(found)];
"""


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A driver of selenium's, with the console and all requests in its logs."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for word in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(60)
        driver.set_script_timeout(20)
        yield driver
    finally:
        driver.quit()


def show(driver: Any, *, width: int, theme: str = "light", height: int = 900) -> None:
    """Give the window a width, below what a real one may have too, and the reader's choice of colors."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    colors = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", colors)


def misplaced(driver: Any, roots: str) -> list[str]:
    """What of the elements that a CSS selector finds does not fit into the window."""
    found: list[str] = driver.execute_script(MISPLACED, roots)
    return found


def complaints(driver: Any) -> list[str]:
    """What the console has said since it was last asked."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requested(driver: Any) -> set[str]:
    """The addresses that pages have asked for since the last call, without the browser's own and what a page holds."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [message["params"]["request"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return {request["url"] for request in sent if not request["url"].startswith(("chrome", "data:"))}
