"""The examples on the pages of the documentation run; those in docstrings are run by pytest itself."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(?:python|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *starts: str) -> list[str]:
    found = [block for block in FENCE.findall(page.read_text()) if block.startswith(starts)]
    return [block for block in found if "runs/" not in block]  # what reads a run's folder needs a trained run


def with_blocks(*starts: str) -> pytest.MarkDecorator:
    pages = [page for page in PAGES if blocks(page, *starts)]
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


@with_blocks(">>> ")
def test_the_sessions_on_the_page_give_what_it_shows(page: Path):
    session = "\n\n".join(blocks(page, ">>> "))  # the closing fence is no output of the last line
    test = doctest.DocTestParser().get_doctest(session, {}, page.name, str(page), 0)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert not report, "".join(report)


@with_blocks("import ", "from ")
def test_the_programs_on_the_page_run(page: Path):
    names: dict[str, object] = {"__name__": page.name}
    for block in blocks(page, "import ", "from "):
        exec(compile(block, str(page), "exec"), names)
