import re

import pytest

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel.launch import Launch, read_launch

WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "head", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "environment", [{}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": " "}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": "1", "RANK": "0"}]
)
def test_a_process_by_itself_has_no_launch(environment: dict[str, str]):
    assert read_launch(environment) is None


def test_the_environment_says_which_process_this_is_and_where_all_meet():
    launch = read_launch(WHOLE)
    assert launch == Launch(rank=1, size=2, local_rank=1, host="head", port=29500, by_torchrun=False)
    assert launch.place == "head:29500"
    assert launch.server == "rank 0"
    assert not launch.serves
    first = read_launch(WHOLE | {"RANK": "0", "LOCAL_RANK": ""})
    assert first is not None
    assert first.serves
    assert first.local_rank == 0


def test_torchrun_serves_the_store_itself():
    launch = read_launch(WHOLE | {"RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"})
    assert launch is not None
    assert not launch.serves
    assert launch.server == "torchrun at head:29500"


@pytest.mark.parametrize("value", ["abc", "-2", "0", "1e3", "2.0", "+2", "1_0", "\u0662", "9" * 30, "2\n3", "1000001"])
def test_a_count_of_processes_that_is_none_is_refused(value: str):
    with pytest.raises(UserError) as error:
        read_launch(WHOLE | {"WORLD_SIZE": value})
    shown = ascii(value)[1:-1]
    assert str(error.value) == f"WORLD_SIZE must be a whole number from 1 to 1000000, but got {shown}."


@pytest.mark.parametrize("value", ["2", "-1", "x", "1.5"])
def test_a_rank_that_is_none_of_them_is_refused(value: str):
    message = f"RANK must be a whole number from 0 to 1, one less than WORLD_SIZE, but got {value}."
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        read_launch(WHOLE | {"RANK": value})


def test_a_rank_beyond_a_single_process_is_refused():
    with pytest.raises(
        UserError, match=r"^RANK must be a whole number from 0 to 0, one less than WORLD_SIZE, but got 1"
    ):
        read_launch({"WORLD_SIZE": "1", "RANK": "1"})


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("LOCAL_RANK", "x", "of at least 0"),
        ("LOCAL_RANK", "-1", "of at least 0"),
        ("MASTER_PORT", "x", "from 1 to 65535"),
        ("MASTER_PORT", "0", "from 1 to 65535"),
        ("MASTER_PORT", "70000", "from 1 to 65535"),
    ],
)
def test_other_numbers_that_are_none_are_refused(name: str, value: str, rule: str):
    with pytest.raises(UserError, match=f"^{name} must be a whole number {rule}, but got {value}.$"):
        read_launch(WHOLE | {name: value})


@pytest.mark.parametrize(
    ("missing", "listed"),
    [
        (["MASTER_PORT"], "MASTER_PORT is"),
        (["MASTER_ADDR", "MASTER_PORT"], "MASTER_ADDR and MASTER_PORT are"),
        (["RANK", "MASTER_ADDR", "MASTER_PORT"], "RANK, MASTER_ADDR and MASTER_PORT are"),
    ],
)
def test_variables_that_are_missing_are_named(missing: list[str], listed: str):
    given = {name: value for name, value in WHOLE.items() if name not in missing}
    with pytest.raises(UserError) as error:
        read_launch(given)
    remedy = "start the processes with torchrun, which sets them all."
    assert str(error.value) == f"WORLD_SIZE is 2, but {listed} not set: {remedy}"
