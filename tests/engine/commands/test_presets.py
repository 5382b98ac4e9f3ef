import pytest

from gan_blocks.engine.commands import console
from gan_blocks.engine.commands.presets import preset_rows
from gan_blocks.engine.recipe.registry import registered_recipes
from recipes import biggan, sngan


def test_a_row_counts_the_parameters_of_both_networks():
    rows = {row.preset: row for row in preset_rows(biggan.RECIPE)}
    assert list(rows) == list(biggan.PRESETS)
    large = rows["imagenet-128"]
    assert (large.recipe, large.data, large.resolution) == ("biggan", "folder:data/imagenet-128", 128)
    assert (large.parameters_g, large.parameters_d) == (70_433_988, 87_982_370)  # of the paper's Table 4


def test_the_table_has_a_line_for_every_preset_of_the_recipes_named(capsys: pytest.CaptureFixture[str]):
    assert console.main(["presets", "sngan", "recipes.biggan_deep"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[0] == "Recipe"
    assert [line.split()[:2] for line in lines[: len(sngan.PRESETS)]] == [["sngan", name] for name in sngan.PRESETS]
    assert lines[-1].split()[0] == "biggan_deep"
    assert len({len(line) for line in lines}) == 1


def test_without_a_name_all_registered_recipes_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("gan_blocks.engine.commands.presets.build_on_meta", lambda recipe, config: ())
    monkeypatch.setattr("gan_blocks.engine.commands.presets.preset_rows", lambda recipe: iter(()))
    assert console.main(["presets"]) == 0
    rows = [load.load() for load in registered_recipes().values()]
    assert sum(len(recipe.presets) for recipe in rows) >= 60
    assert capsys.readouterr().out.startswith("Recipe  Preset")


def test_an_unknown_recipe_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert console.main(["presets", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("presets: error: there is no recipe nonsense: name a registered one (")
