import dataclasses
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from gan_blocks.engine import AdamFields, Recipe, TrainingConfig, UserError
from gan_blocks.engine.recipe.config_json import config_to_json
from gan_blocks.engine.runs.identity import RecipeIdentity
from recipes import biggan_deep, progan


@dataclass(frozen=True)
class Config(AdamFields, TrainingConfig):
    latent_dim: int = 6
    widths: tuple[int, ...] = (4, 2)


def network(_config: Config) -> nn.Module:
    return nn.Linear(1, 1)


def recipe_of(**changes: Any) -> Recipe[Any]:
    parts: dict[str, Any] = {
        "config": Config,
        "presets": {"small": Config, "wide": lambda: Config(widths=(8, 4))},
        "build_generator": network,
        "build_discriminator": network,
        "train_step": lambda state, batches, config: {},
    }
    return Recipe(**{**parts, **changes})


RECIPE = recipe_of()


def test_a_recipe_knows_the_module_that_made_it_and_its_name_there():
    assert RECIPE.module == __name__
    assert RECIPE.identity.reference == f"{__name__}:RECIPE"
    assert dataclasses.replace(RECIPE, presets={"other": Config}).module == __name__
    assert biggan_deep.RECIPE.identity == RecipeIdentity("recipes.biggan_deep:RECIPE")
    assert biggan_deep.RECIPE.name == "biggan_deep"
    assert biggan_deep.RECIPE.command == "python -m recipes.biggan_deep"
    assert biggan_deep.RECIPE.description == biggan_deep.__doc__


def test_a_recipe_without_a_name_says_how_to_give_it_one():
    with pytest.raises(RuntimeError, match=r"^Recipe: the value must have a name in .*, as in RECIPE = Recipe"):
        _ = recipe_of().identity


@pytest.mark.parametrize(("spec_name", "expected"), [("pkg.gan", "pkg.gan:MINE"), (None, "gan:MINE")])
def test_the_main_module_is_named_by_how_it_was_started(
    spec_name: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "gan.py"
    file.write_text("source")
    main = ModuleType("__main__")
    main.__file__ = str(file)
    main.__spec__ = None if spec_name is None else type("Spec", (), {"name": spec_name})()
    main.MINE = recipe_of(module="__main__")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    identity = main.MINE.identity  # type: ignore[attr-defined]
    assert identity.reference == expected
    if spec_name is None:
        assert (identity.file, identity.sha256) == (str(file), hashlib.sha256(b"source").hexdigest())
    else:
        assert identity.file is None


def test_a_config_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"^Recipe: `config` must be a class that inherits TrainingConfig, but got "):
        recipe_of(config=dict)


def test_a_recipe_without_presets_is_refused():
    with pytest.raises(ValueError, match=r"^Recipe: `presets` must have one entry or more, but got none\.$"):
        recipe_of(presets={})


def test_the_first_preset_is_the_default_and_others_are_named():
    assert RECIPE.choose_preset(None) == "small"
    assert RECIPE.choose_preset("wide") == "wide"
    with pytest.raises(UserError) as error:
        RECIPE.choose_preset("huge")
    assert str(error.value) == "--preset must be one of small, wide, but got huge."


@pytest.mark.parametrize("recipe", [RECIPE, biggan_deep.RECIPE, progan.RECIPE], ids=["own", "biggan_deep", "progan"])
def test_every_preset_survives_json(recipe: Recipe[Any]):
    for preset in recipe.presets.values():
        assert recipe.config_from_json(config_to_json(preset())) == preset()


def test_a_younger_field_takes_its_default_and_an_unknown_one_is_named():
    saved = config_to_json(Config())
    del saved["widths"]
    assert RECIPE.config_from_json(saved) == Config()
    with pytest.raises(UserError) as error:
        RECIPE.config_from_json({**saved, "depth": 3, "breadth": 2})
    rule = f"which this version of {__name__} does not know; the version that wrote it still reads it."
    assert str(error.value) == f"the saved Config has --breadth 2 --depth 3, {rule}"


def test_a_saved_value_is_checked_against_its_annotation():
    with pytest.raises(UserError) as error:
        RECIPE.config_from_json({**config_to_json(Config()), "batch_size": "many"})
    assert str(error.value) == "--batch-size must be a whole number, but got many."


class Undecorated(AdamFields, TrainingConfig):
    latent_dim: int = 6


@dataclass(frozen=True)
class Clashing(Config):
    resume: str = ""


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"config": Undecorated}, "Recipe: `config` must be a dataclass; Undecorated lacks @dataclass(frozen=True)."),
        ({"config": Clashing}, "Recipe: no field of a Config may be called resume: the engine has such an option."),
        ({"presets": {"small": 3}}, "Recipe: `presets` must be functions that return a Config, but small is a 3."),
    ],
)
def test_what_cannot_work_is_refused_when_the_recipe_is_made(changes: dict[str, Any], problem: str):
    with pytest.raises(TypeError) as error:
        recipe_of(**changes)
    assert str(error.value) == problem


def test_a_preset_that_gives_something_else_is_one_line():
    with pytest.raises(UserError, match=r"^the preset odd must return a Config, but returned dict\.$"):
        recipe_of(presets={"odd": dict}).choose_preset(None)
