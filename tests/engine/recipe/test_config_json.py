import dataclasses
import json
import math
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from gan_blocks.engine import TrainingConfig, UserError
from gan_blocks.engine.recipe.config_json import as_options, check_config_saves, config_from_json, config_to_json


@dataclass(frozen=True)
class Config(TrainingConfig):
    latent_dim: int = 6
    widths: tuple[int, ...] = (4, 2)


@dataclass(frozen=True)
class Stage:
    widths: tuple[int, ...]
    table: Path = Path("table.csv")


@dataclass(frozen=True)
class NestedConfig(Config):
    stages: tuple[tuple[int, int], ...] = ((4, 16), (8, 32))
    growth: tuple[Stage, ...] = (Stage((1, 2)), Stage((), Path("other.csv")))
    last: Stage | None = Stage((3,))
    pair: tuple[str, tuple[float, ...]] = ("a", (0.5, 1.0))
    place: Path = Path("/somewhere/else")
    perhaps: Path | None = Path("here")
    either: Literal["auto"] | tuple[int, ...] = (1, 2)
    names: list[str] = field(default_factory=lambda: ["x", "y"])
    ratio: float = math.nan
    area: float = field(init=False, default=0.0)

    @cached_property
    def largest(self) -> int:
        return max(self.widths)


def test_a_config_of_tuples_in_tuples_paths_and_dataclasses_is_read_as_it_was_saved():
    config = NestedConfig()
    assert config.largest == 4  # what is computed of the fields is not saved
    check_config_saves(config)
    text = json.dumps(config_to_json(config))
    again = config_from_json(NestedConfig, json.loads(text))
    assert repr(again) == repr(config)  # NaN is not equal to itself
    assert dataclasses.replace(again, ratio=1.0) == dataclasses.replace(config, ratio=1.0)
    assert json.dumps(config_to_json(again)) == text


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"last": {"widths": [1], "depth": 2}}, "the saved Config has --depth 2, which this version of "),
        ({"last": {"table": "a"}}, "the saved Config lacks --widths, which has no default."),
        ({"stages": [[4, 16, 3]]}, "--stages must be values of which each is 2 values, but got (4, 16, 3)."),
        ({"place": 3}, "--place must be a path, but got 3."),
    ],
)
def test_a_saved_value_that_fits_no_field_is_named(values: dict[str, Any], problem: str):
    with pytest.raises(UserError) as error:
        config_from_json(NestedConfig, values)
    assert str(error.value).startswith(problem)


class Point(NamedTuple):
    x: int
    y: int


class Norm(StrEnum):
    BATCH = "batch"


@dataclass(frozen=True)
class LosingConfig(Config):
    table: Any = None


@pytest.mark.parametrize(
    "value",
    [{4: 16}, {1, 2}, [1, 2], ((1, [2]),), Path("a"), 1j, Point(1, 2), (Norm.BATCH,)],
    ids=["keys", "set", "list", "inner", "path", "other", "named tuple", "enumeration"],
)
def test_a_config_that_could_not_be_read_again_is_refused_before_it_is_trained(value: Any):
    with pytest.raises(UserError) as error:
        check_config_saves(LosingConfig(table=value))
    remedy = "Use numbers, flags, text, paths, None, and tuples, lists or dataclasses of these, annotated so"
    assert str(error.value) == f"--table cannot be read back from a saved run: got {value!r}. {remedy}."


def test_fields_inside_a_dataclass_are_typed_as_options_of_their_own():
    assert as_options({"seed": 1, "last": {"widths": [3], "table": "a"}}) == "--seed 1 --widths 3 --table a"
