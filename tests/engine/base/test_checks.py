import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from gan_blocks.engine.base.checks import Fields, require, require_positive
from gan_blocks.engine.base.errors import UserError


@dataclass(frozen=True)
class Everything(Fields):
    flag: bool = False
    count: int = 1
    rate: float = 0.5
    name: str = "x"
    place: Path = Path()
    choice: Literal["a", "b"] = "a"
    number: Literal[1, 2, 3] = 1
    maybe: int | None = None
    either: Literal["auto"] | int = "auto"
    widths: tuple[int, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    choices: tuple[Literal["c", "d"], ...] = ()
    annotated: Annotated[int, "a note"] = 1
    anything: Any = None


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("flag", [True]),
        ("count", [-3]),
        ("rate", [1, 2.5, float("inf")]),
        ("place", [Path("a")]),
        ("choice", ["b"]),
        ("number", [3]),
        ("maybe", [None, 4]),
        ("either", ["auto", 7]),
        ("widths", [(), (1, 2, 3)]),
        ("pair", [(1, 2)]),
        ("choices", [("c", "d", "c")]),
        ("annotated", [2]),
        ("anything", ["x", 1]),
    ],
)
def test_values_that_fit_their_annotation_are_taken(field: str, values: list[Any]):
    for value in values:
        assert getattr(dataclasses.replace(Everything(), **{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("flag", 1, "--flag must be True or False, but got 1."),
        ("count", 1.0, "--count must be a whole number, but got 1.0."),
        ("count", True, "--count must be a whole number, but got True."),
        ("rate", "fast", "--rate must be a number, but got fast."),
        ("name", 3, "--name must be text, but got 3."),
        ("place", "a", "--place must be a path, but got a."),
        ("choice", "c", "--choice must be a or b, but got c."),
        ("number", 4, "--number must be one of 1, 2, 3, but got 4."),
        ("number", True, "--number must be one of 1, 2, 3, but got True."),
        ("maybe", "x", "--maybe must be a whole number, but got x."),
        ("either", "manual", "--either must be auto or a whole number, but got manual."),
        ("widths", (1, 2.5), "--widths must be values of which each is a whole number, but got 1 2.5."),
        ("widths", [1, 2], "--widths must be a tuple, but got [1, 2]."),
        ("pair", (1.0,), "--pair must be 2 values, but got 1.0."),
        ("choices", ("c", "e"), "--choices must be values of which each is c or d, but got c e."),
        ("annotated", "x", "--annotated must be a whole number, but got x."),
    ],
)
def test_values_that_do_not_are_named_as_options(field: str, value: Any, message: str):
    with pytest.raises(UserError) as error:
        Everything(**{field: value})
    assert str(error.value) == message


@dataclass(frozen=True)
class First(Fields):
    first: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "first")


@dataclass(frozen=True)
class Second(Fields):
    second: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "second", self.second % 2 == 1, "odd")


@dataclass(frozen=True)
class Both(First, Second):
    pass


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first": 0}, "--first must be greater than 0, but got 0."),
        ({"second": 2}, "--second must be odd, but got 2."),
        ({"first": "x", "second": 2}, "--first must be a whole number, but got x."),
    ],
)
def test_every_inherited_group_checks_its_own_fields_after_the_annotations_of_all(values: Any, message: str):
    with pytest.raises(UserError) as error:
        Both(**values)
    assert str(error.value) == message
    assert Both(3, 5) == Both(second=3, first=5)
