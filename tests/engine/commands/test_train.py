from pathlib import Path

import pytest

from gan_blocks.engine.commands import console, train
from gan_blocks.engine.recipe.registry import registered_recipes


def test_the_first_word_is_the_recipe(tiny_args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["train", "biggan_deep", *tiny_args, "--run-dir", str(tmp_path / "run")]
    assert console.main([*words, "--steps", "1"]) == 0
    assert console.main([*words, "--steps", "2"]) == 0
    assert "Continuing after step 1" in capsys.readouterr().err
    assert console.main([*words, "--steps", "1"]) == 0
    expected = "Nothing is left to train up to step 1; --steps is the number of the last one."
    assert expected in capsys.readouterr().err


def test_the_help_names_the_registered_recipes(capsys: pytest.CaptureFixture[str]):
    assert train.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in registered_recipes())
    with pytest.raises(SystemExit):
        console.main(["train", "sngan", "--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: gan-blocks train sngan ")
    assert "--generator-widths" in said


@pytest.mark.parametrize(("words", "got"), [([], "nothing"), (["--steps", "3"], "--steps")])
def test_a_command_line_without_a_recipe_is_one_line(words: list[str], got: str, capsys: pytest.CaptureFixture[str]):
    assert console.main(["train", *words]) == 2
    known = ", ".join(registered_recipes())
    expected = f"train: error: the first word must name a recipe ({known}, a file or a module), but got {got}.\n"
    assert capsys.readouterr().err == expected


def test_typing_errors_pass_on_what_the_parser_offers(capsys: pytest.CaptureFixture[str]):
    assert console.main(["train", "sngan", "--stpes", "3"]) == 2
    expected = "sngan: error: Unrecognized option: --stpes. Perhaps you meant --steps. See --help.\n"
    assert capsys.readouterr().err == expected
