import pytest

from gan_blocks.engine.runs.identity import RecipeIdentity

REGISTERED = RecipeIdentity("recipes.biggan_deep:RECIPE")
FILE = RecipeIdentity("my_gan:RECIPE", "/home/me/my_gan.py", "ab12")


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("recipes.biggan_deep:RECIPE", "biggan_deep"),
        ("my_gan:RECIPE", "my_gan"),
        ("a.b.c:SMALL", "c-SMALL"),
        ("biggan_deep", "biggan_deep"),  # of runs of earlier versions
    ],
)
def test_the_short_name_is_the_modules_last_part(reference: str, name: str):
    assert RecipeIdentity(reference).name == name


@pytest.mark.parametrize("identity", [REGISTERED, FILE])
def test_what_is_saved_is_read_again(identity: RecipeIdentity):
    assert RecipeIdentity.from_dict(identity.as_dict() | {"preset": "x", "config": {}}) == identity


def test_only_a_loose_file_is_saved_with_path_and_hash():
    assert REGISTERED.as_dict() == {"recipe": "recipes.biggan_deep:RECIPE"}
    assert FILE.as_dict() == {
        "recipe": "my_gan:RECIPE",
        "recipe_file": {"path": "/home/me/my_gan.py", "sha256": "ab12"},
    }


def test_one_recipe_started_in_two_ways_is_one_recipe():
    assert FILE.is_of(RecipeIdentity("my_package.my_gan:RECIPE"))
    assert RecipeIdentity("biggan_deep").is_of(REGISTERED)
    assert not FILE.is_of(REGISTERED)
    assert not FILE.is_of(RecipeIdentity("my_gan:SMALL"))


def test_the_file_is_shown_with_the_name():
    assert str(FILE) == "my_gan:RECIPE (/home/me/my_gan.py)"
    assert str(REGISTERED) == "recipes.biggan_deep:RECIPE"
