from pathlib import Path

import pytest

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.json_values import (
    DamagedJsonError,
    is_count,
    is_list_of,
    is_number,
    is_object,
    is_text,
    merged,
    parse_object,
    read_object,
)

SHAPE = {"step": is_count, "parts": is_object}


def test_an_object_of_the_shape_comes_back_whole():
    assert parse_object(b'{"step": 3, "parts": {}, "more": [1]}', SHAPE) == {"step": 3, "parts": {}, "more": [1]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is not a JSON object"),
        ("{", "it is not a JSON object"),
        ("[" * 100_000, "it is not a JSON object"),
        ('{"step":' * 100_000, "it is not a JSON object"),
        (b"\xff\xfe\x00", "it is not a JSON object"),
        ("[]", "it is not a JSON object"),
        ("null", "it is not a JSON object"),
        ('{"parts": {}}', "it does not say step"),
        ('{"step": "3", "parts": {}}', "its step is not what was written there"),
        ('{"step": 3.0, "parts": {}}', "its step is not what was written there"),
        ('{"step": true, "parts": {}}', "its step is not what was written there"),
        ('{"step": -3, "parts": {}}', "its step is not what was written there"),
        ('{"step": 3, "parts": []}', "its parts is not what was written there"),
    ],
)
def test_what_is_wrong_is_said(text: str | bytes, problem: str, tmp_path: Path):
    with pytest.raises(DamagedJsonError) as error:
        parse_object(text, SHAPE)
    assert str(error.value) == problem
    path = tmp_path / "state.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as named:
        read_object(path, SHAPE)
    assert str(named.value) == f"{path} is damaged: {problem}."


def test_what_cannot_be_read_is_said(tmp_path: Path):
    with pytest.raises(UserError, match=r"state\.json cannot be read: No such file or directory\.$"):
        read_object(tmp_path / "state.json", {})
    with pytest.raises(UserError, match=r" cannot be read: Is a directory\.$"):
        read_object(tmp_path, {})


def test_parts_are_merged_unless_one_would_replace_another():
    assert merged([("one", {"a": 1}), ("none", {}), ("two", {"b": None})]) == {"a": 1, "b": None}
    with pytest.raises(ValueError, match=r"^one and two both have an entry a; one needs another name\.$"):
        merged([("one", {"a": 1}), ("two", {"b": 2, "a": 1})])


def test_kinds_of_values():
    assert is_list_of(int)([])
    assert is_list_of(int)([1, -2])
    for other in ([1, True], [1, 2.0], ["1"], 1, {1: 2}, None):
        assert not is_list_of(int)(other)
    assert is_number(1.5)
    assert is_number(float("nan"))
    assert not is_number("1")
    assert not is_number(None)
    assert is_text("a word")
    assert not is_text("two\nlines")
    assert not is_text("\x1b[31m")
    assert not is_text(3)
