import sys
from pathlib import Path

import pytest

from gan_blocks.engine.base.code_files import load_code_file
from gan_blocks.engine.base.errors import UserError


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_a_file_is_loaded_once_and_imports_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("lies_beside_it", "is_loaded_once"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "lies_beside_it.py").write_text("value = []\n")
    path = tmp_path / "is_loaded_once.py"
    path.write_text("from lies_beside_it import value\nvalue.append(1)\n")
    first = load_code_file(path, what="file")
    assert load_code_file(tmp_path / "." / path.name, what="file") is first
    assert first.value == [1]


def test_a_file_that_is_not_there_is_called_by_its_kind(tmp_path: Path):
    with pytest.raises(UserError) as error:
        load_code_file(tmp_path / "gone.py", what="recipe file")
    assert str(error.value) == f"there is no recipe file {tmp_path}/gone.py."


def test_a_file_without_the_ending_is_no_python_file(tmp_path: Path):
    (tmp_path / "code_of_no_suffix.txt").touch()
    with pytest.raises(UserError) as error:
        load_code_file(tmp_path / "code_of_no_suffix.txt", what="recipe file")
    assert str(error.value) == f"{tmp_path}/code_of_no_suffix.txt is no Python file; its name must end in .py."


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import sys\nsys.exit('no')\n", "SystemExit: no (line 2 of {path})."),
        ("import os\n\nsize = unknown\n", "NameError: name 'unknown' is not defined (line 3 of {path})."),
        ("def f(:\n", "SyntaxError: invalid syntax (line 1 of {path})."),
        (
            "from gan_blocks.engine import require_positive\nclass A: size = 0\nrequire_positive(A, 'size')\n",
            "--size must be greater than 0, but got 0 (line 3 of {path}).",
        ),
    ],
    ids=["exit", "error", "syntax", "check of the engine"],
)
def test_a_file_that_cannot_be_imported_says_which_line_fails(source: str, problem: str, tmp_path: Path):
    path = tmp_path / "fails_somewhere.py"
    path.write_text(source)
    with pytest.raises(UserError) as error:
        load_code_file(path, what="recipe file")
    assert str(error.value) == f"{path} cannot be imported: {problem.format(path=path)}"


def test_a_file_with_the_name_of_another_module_is_to_be_renamed(tmp_path: Path):
    path = tmp_path / "pathlib.py"
    path.touch()
    with pytest.raises(UserError) as error:
        load_code_file(path, what="recipe file")
    assert str(error.value) == f"{path} has the name of a module that is in use, pathlib; rename the file."


def test_a_file_that_fails_is_not_kept_as_a_module(tmp_path: Path):
    (tmp_path / "fails_at_once.py").write_text("raise ZeroDivisionError\n")
    for _ in range(2):
        with pytest.raises(UserError, match="ZeroDivisionError"):
            load_code_file(tmp_path / "fails_at_once.py", what="recipe file")
    assert "fails_at_once" not in sys.modules
