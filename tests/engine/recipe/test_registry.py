import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.recipe import registry
from gan_blocks.engine.recipe.registry import find_recipe, load_registered, recipe_of, registered_recipes
from gan_blocks.engine.runs.identity import RecipeIdentity
from recipes import biggan, biggan_deep
from tests.engine.own_gan import ROOT, write_own_gan

RUN = Path("runs/x")


@pytest.fixture
def own_gan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "my_gan", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return write_own_gan(tmp_path)


def test_every_recipe_of_the_project_is_registered():
    files = {path.stem for path in (ROOT / "recipes").rglob("*.py") if re.search(r"^RECIPE = ", path.read_text(), re.M)}
    ours = {name for name, entry in registered_recipes().items() if entry.value.startswith("recipes.")}
    assert ours == files
    for name in ours:
        assert load_registered(registered_recipes()[name]).name == name


def test_a_recipe_is_found_by_short_name_module_and_file(own_gan: Path):
    assert find_recipe("biggan_deep") is biggan_deep.RECIPE
    assert find_recipe("recipes.biggan_deep") is biggan_deep.RECIPE
    assert find_recipe("recipes.biggan_deep:RECIPE") is biggan_deep.RECIPE
    own = find_recipe(str(own_gan))
    assert own.name == "my_gan"
    assert own.identity.file == str(own_gan)
    assert find_recipe(f"{own_gan}:RECIPE") is own


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            "nonsense",
            r"there is no recipe nonsense: name a registered one \(.*biggan_deep.*\), a file or a module\.",
        ),
        ("recipes.nonsense", r"there is no recipe recipes.nonsense: .*"),
        ("no/such/file.py", r"there is no recipe file no/such/file\.py\."),
        ("recipes.sample", r"recipes\.sample is no recipe: the module has no RECIPE = Recipe\(\.\.\.\)\."),
        (
            "recipes.biggan:PRESETS",
            r"recipes\.biggan:PRESETS is no recipe: the module has no PRESETS = Recipe\(\.\.\.\)\. "
            r"It has RECIPE: write recipes\.biggan:RECIPE\.",
        ),
        (":RECIPE", r"there is no recipe :RECIPE: .*"),
        ("..", r"there is no recipe \.\.: .*"),
        ("../../evil", r"there is no recipe file \.\./\.\./evil\."),
        ("os.system", r"there is no recipe os\.system: .*"),
        ("antigravity", r"there is no recipe antigravity: .*"),
    ],
)
def test_what_is_not_found_is_one_line(named: str, message: str):
    with pytest.raises(UserError) as error:
        find_recipe(named)
    assert re.fullmatch(message, str(error.value))


@pytest.mark.parametrize("named", ["os.system", "antigravity", "this", "a b", "..", "a..b", "x\ny", "\x1b[31m"])
def test_what_holds_no_recipe_is_not_imported(named: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry.importlib, "import_module", None)
    with pytest.raises(UserError, match="there is no recipe "):
        find_recipe(named)


def test_a_module_that_lacks_something_else_says_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken_recipe.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as error:
        find_recipe("broken_recipe")
    assert str(error.value) == (
        "the module broken_recipe cannot be imported: ModuleNotFoundError: No module named 'not_there_at_all' "
        f"(line 1 of {tmp_path / 'broken_recipe.py'})."
    )


def test_a_module_that_ends_the_program_ends_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "ends_it_all.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as error:
        find_recipe("ends_it_all")
    line = f"(line 2 of {tmp_path / 'ends_it_all.py'})"
    assert str(error.value) == f"the module ends_it_all cannot be imported: SystemExit: 0 {line}."


@pytest.mark.parametrize("reference", ["recipes.biggan_deep:RECIPE", "biggan_deep"])
def test_a_registered_recipe_counts_by_reference_and_by_the_short_name_of_earlier_runs(reference: str):
    assert recipe_of(RecipeIdentity(reference), RUN) is biggan_deep.RECIPE


def test_nothing_else_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as error:
        recipe_of(RecipeIdentity("evil:RECIPE"), RUN)
    assert str(error.value) == "runs/x was made by evil:RECIPE; add --recipe FILE_OR_MODULE if you trust it."


def test_a_named_recipe_has_to_be_the_one_that_made_the_run(own_gan: Path):
    own = find_recipe(str(own_gan))
    assert recipe_of(RecipeIdentity("elsewhere.my_gan:RECIPE"), RUN, own) is own
    with pytest.raises(UserError) as error:
        recipe_of(biggan.RECIPE.identity, RUN, own)
    assert str(error.value) == f"runs/x was made by recipes.biggan:RECIPE, not by my_gan:RECIPE ({own_gan})."


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("gone.away:RECIPE", ", registered as {}, cannot be imported: ModuleNotFoundError: No module named 'gone'."),
        (
            "recipes.biggan:NOTHING",
            ", registered as {}, cannot be imported: "
            "AttributeError: module 'recipes.biggan' has no attribute 'NOTHING'.",
        ),
        ("recipes.biggan:PRESETS", " is registered as {}, which is no Recipe."),
    ],
)
def test_a_registration_that_leads_nowhere_is_one_line(value: str, problem: str):
    with pytest.raises(UserError) as error:
        load_registered(EntryPoint("mine", value, registry.GROUP))
    assert str(error.value) == f"the recipe mine{problem.format(value)}"


def test_a_file_beside_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lonely_gan.py").touch()
    with pytest.raises(UserError, match=r"a file or a module\. Perhaps you meant the file lonely_gan\.py\.$"):
        find_recipe("lonely_gan")


@pytest.mark.parametrize("named", ["~nobody-of-that-name/x", "a" * 300, f"{'a' * 300}.py", "a/" * 3000, "\0.py", "x\0"])
def test_a_name_that_no_file_or_module_has_is_one_line(named: str):
    with pytest.raises(UserError):
        find_recipe(named)
