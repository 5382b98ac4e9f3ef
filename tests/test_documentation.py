"""The examples on the pages of the documentation run, and the page of the papers leaves nothing out.

Examples in docstrings are run by pytest itself, the tutorials by ``tests/test_tutorials.py``.
"""

import doctest
import re
from pathlib import Path
from types import ModuleType

import pytest

import gan_blocks
import gan_blocks.engine
from gan_blocks.engine import find_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if page.parent.name != "tutorials"]
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


TABLES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", TABLES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_row_of_a_table_has_a_cell_for_each_column(page: Path):
    widths: list[tuple[int, int]] = []  # of the table so far: line, cells
    for number, line in enumerate([*page.read_text().splitlines(), ""], start=1):
        if line.lstrip().startswith("|"):
            bare = re.sub(r"`[^`]*`|\\\||\$[^$]*\$", "", line.strip())  # bars in code and formulas part no cells
            widths.append((number, bare.count("|") - 1))
        else:
            assert all(cells == widths[0][1] for _, cells in widths), f"{page.name}: {widths}"
            widths = []


PAPERS = {
    "BigGAN": {"Equation": range(1, 6), "Table": range(1, 10), "Figure": range(1, 30)},
    "Progressive growing": {"Table": range(1, 5), "Figure": range(1, 19)},
    "Top-k training": {"Equation": range(1, 3), "Table": range(1, 6), "Figure": range(1, 5)},
}
WITHOUT_NUMBER = {
    "BigGAN": ["Hinge loss", "Truncation trick", "Standing statistics", "CIFAR-10", "Latents", "Negative results"],
    "Progressive growing": [
        "Minibatch standard deviation",
        "Equalized learning rate",
        "Pixel norm",
        "Sliced Wasserstein distance",
        "Gradient penalty with a target",
        "Moving average",
        "Drift term",
        "Noise",
        "Crop",
    ],
    "Top-k training": ["FID", "Top-k update", "k schedule", "Listing"],
}


@pytest.mark.parametrize("paper", PAPERS)
def test_the_page_of_the_papers_has_a_row_for_every_numbered_item(paper: str):
    section = (ROOT / "docs" / "papers.md").read_text().partition(f"\n## {paper}\n")[2].partition("\n## ")[0]
    items = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
    numbered = [re.match(r"(Equation|Table|Figure)s? (\d+(?:, \d+)*)$", item) for item in items]
    found = [(match[1], int(number)) for match in numbered if match for number in match[2].split(", ")]
    assert sorted(found) == sorted((kind, number) for kind, numbers in PAPERS[paper].items() for number in numbers)
    assert set(WITHOUT_NUMBER[paper]) <= {item.partition(",")[0] for item in items}


@pytest.mark.parametrize("name", ["papers.md", "reproductions.md"])
def test_what_the_pages_of_the_papers_name_exists(name: str):
    page = (ROOT / "docs" / name).read_text()
    files = set(re.findall(r"`((?:benchmarks|docs|tests)/[\w/]+\.\w+)`", page))
    files |= {f"benchmarks/results/{result}" for result in re.findall(r"`(\w+_cpu2_\w+\.md)`", page)}
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []
    named = re.findall(r"`(\w+)` ((?:`[a-z0-9-]+`(?:, | to | and )?)+)", page)
    pairs = [(recipe, preset) for recipe, presets in named for preset in re.findall(r"`([a-z0-9-]+)`", presets)]
    pairs += re.findall(r"(?:train |describe |recipes\.)(\w+) --preset ([\w-]+)", page)
    assert pairs
    assert [pair for pair in pairs if pair[1] not in find_recipe(pair[0]).presets] == []


@pytest.mark.parametrize("package", [gan_blocks, gan_blocks.engine], ids=lambda package: package.__name__)
def test_every_public_name_stands_in_a_guide(package: ModuleType):
    """In a sentence or a table that says when to use it; code shows how, not when."""
    guides = [page for page in (ROOT / "docs").rglob("*.md") if page.parent.name not in ("api", "developing")]
    guides.remove(ROOT / "docs" / "papers.md")
    text = "\n".join(re.sub(r"^(```|~~~).*?^\1", "", page.read_text(), flags=re.M | re.S) for page in guides)
    named = set(re.findall(r"`[~.\w]*?(\w+)`", text))
    assert [name for name in package.__all__ if name not in named] == []
