"""The page of ``--help``: names, values, groups and marks of options, whose texts are docstrings of fields."""

from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import tyro

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.terminal.command_line import parse_choice, parse_options
from gan_blocks.engine.base.terminal.help_page import help_page, hint


@dataclass(frozen=True)
class Images:
    help_group: ClassVar[str] = "data"

    data: Annotated[str, hint(lambda: "digits or clothes.")] = "digits"
    """Images to learn:"""
    size: int = 32
    """Height and width.

    A second paragraph, for readers of the code.
    """


@dataclass(frozen=True)
class Config(Images):
    widths: tuple[int, ...] = (8, 4)
    """Channels."""
    norm: Literal["batch", "none"] = "batch"
    """What is normalized."""
    rate: float = 1e-4
    """Learning rate."""
    mirror: bool = False
    """Mirrored, too."""
    folder: Path | None = None
    """Where to put it (default: a new folder)."""


@dataclass(frozen=True)
class Switches(Config):
    channels_last: bool = True
    """Keep images as NHWC."""


@dataclass(frozen=True)
class Required:
    run: Path
    """Folder of a run."""


@dataclass(frozen=True)
class Weights:
    r1: float = 1.0
    """Weight of R1."""
    log_r1: bool = False
    """Whether it is logged."""


@dataclass(frozen=True)
class Nested:
    size: int = 32
    """Height and width."""
    loss_terms: Weights = Weights(r1=2)
    """Weights of the loss."""


def page(kind: type, **options: object) -> list[str]:
    return help_page(kind, prog="train", description="Train.", **options).splitlines()


def test_an_option_is_shown_with_its_value_or_with_what_kind_of_value_it_takes():
    assert page(Config) == [
        "usage: train [OPTIONS]",
        "",
        "Train.",
        "",
        "options:",
        "  --widths 8 4              Channels.",
        "  --norm batch              What is normalized: batch, none.",
        "  --rate 0.0001             Learning rate.",
        "  --[no-]mirror (off)       Mirrored, too.",
        "  --folder PATH             Where to put it (default: a new folder).",
        "",
        "data:",
        "  --data digits             Images to learn: digits or clothes.",
        "  --size 32                 Height and width.",
    ]


def test_an_option_that_is_on_or_off_has_both_of_its_spellings():
    assert "  --[no-]channels-last (on)  Keep images as NHWC." in page(Switches)


def test_values_of_a_preset_that_differ_are_marked():
    preset = Config(size=64, widths=(8, 4), rate=1.0)
    kind = make_dataclass("Command", [("training", Annotated[Config, tyro.conf.OmitArgPrefixes], preset)])
    lines = page(kind, changed="what the preset large sets")
    assert "* marks what the preset large sets." in lines
    assert [line.split()[1] for line in lines if line.startswith("* --")] == ["--size", "--rate"]
    unchanged = make_dataclass("Command", [("training", Annotated[Config, tyro.conf.OmitArgPrefixes], Config())])
    assert not [line for line in page(unchanged, changed="what the preset large sets") if line.startswith("*")]


def test_fields_that_are_dataclasses_stand_for_their_own_and_are_typed_as_the_page_has_them():
    assert page(Nested)[4:] == [
        "options:",
        "  --size 32                 Height and width.",
        "",
        "loss terms:",
        "  --loss-terms.r1 2         Weight of R1.",
        "  --[no-]loss-terms.log-r1 (off)  Whether it is logged.",
    ]
    found = parse_options(Nested, prog="train", description="", args=["--loss-terms.r1", "3", "--loss-terms.log-r1"])
    assert found == Nested(loss_terms=Weights(r1=3, log_r1=True))


def test_inside_a_config_they_need_no_prefix_and_what_a_preset_changes_is_marked():
    preset = Nested(loss_terms=Weights(r1=2, log_r1=True))
    kind = make_dataclass("Command", [("config", tyro.conf.OmitArgPrefixes[Nested], preset)])
    assert page(kind, changed="what it sets")[-3:] == [
        "loss terms:",
        "  --r1 2                    Weight of R1.",
        "* --[no-]log-r1 (on)        Whether it is logged.",
    ]
    found = parse_options(kind, prog="train", description="", args=["--r1", "3", "--no-log-r1"])
    assert found.config == Nested(loss_terms=Weights(r1=3))


def test_examples_come_before_all_else():
    lines = page(Config, examples=[("train", "begin"), ("train --resume RUN", "go on")])
    assert lines[:5] == ["usage: train [OPTIONS]", "", "  train               begin", "  train --resume RUN  go on", ""]


def test_an_option_without_a_default_is_required():
    assert "  --run PATH                Folder of a run. Required." in page(Required)


@pytest.mark.parametrize("columns", [60, 80, 300])
def test_lines_fit_the_terminal_and_are_not_wider_than_can_be_read(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    long = make_dataclass("Long", [("a_name_of_some_length", Annotated[int, hint("words " * 60)], 3)])
    lines = help_page(long, prog="p", description="word " * 100).splitlines()
    assert max(map(len, lines)) in range(min(columns, 100) - 8, min(columns, 100) + 1)


def test_lists_and_indented_blocks_keep_their_lines():
    text = "First\nparagraph.\n\n* one\n* two of\n  two lines\n\n    gan-blocks train   biggan\n    gan-blocks presets"
    assert help_page(Required, prog="p", description=text).splitlines()[2:10] == [
        "First paragraph.",
        "",
        "* one",
        "* two of two lines",
        "",
        "    gan-blocks train   biggan",
        "    gan-blocks presets",
        "",
    ]


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_both_spellings_print_the_page_and_end_with_status_0(word: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        parse_options(Config, prog="train", description="Train.", args=["--size", "3", word])
    assert stop.value.code == 0
    assert capsys.readouterr().out.splitlines() == page(Config)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (True, False)),
        (["--no-channels-last", "--mirror"], (False, True)),
        (["--mirror", "--size", "3"], (True, True)),
        (["--mirror", "True", "--channels_last", "False"], (False, True)),
        (["--mirror=True", "--no_channels_last"], (False, True)),
    ],
)
def test_what_is_on_or_off_is_a_flag_or_has_a_value(words: list[str], expected: tuple[bool, bool]):
    parsed = parse_options(Switches, prog="train", description="", args=words)
    assert (parsed.channels_last, parsed.mirror) == expected


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--mirror", "3"], "--mirror must be one of True, False, but got 3. See --help."),
        (["--no-mirror", "True"], "Unrecognized option: True. See --help."),
        (["--no-size"], "Unrecognized option: --no-size. Perhaps you meant --size. See --help."),
    ],
)
def test_a_flag_with_another_value_is_one_line(words: list[str], problem: str):
    with pytest.raises(UserError) as error:
        parse_options(Switches, prog="train", description="", args=words)
    assert str(error.value) == problem


def test_a_command_of_several_words_lists_them_and_each_has_a_page(capsys: pytest.CaptureFixture[str]):
    kinds = {"images": Images, "config": Config}
    for words, usage in ((["--help"], "draw [WORD] [OPTIONS]"), (["config", "-h"], "draw config [OPTIONS]")):
        with pytest.raises(SystemExit):
            parse_choice(kinds, prog="draw", description="Draw.", args=words)
        text = capsys.readouterr().out
        assert text.startswith(f"usage: {usage}\n")
        assert ("--widths" in text) == (words[0] == "config")
        assert ("  draw config" in text) == (words[0] == "--help")


def test_choices_are_named_unless_the_text_has_them_as_words():
    kind = make_dataclass(
        "Kinds",
        [
            ("letter", Annotated[Literal["a", "b"], tyro.conf.arg(help="Kind of table.")], "a"),
            ("maybe", Annotated[Literal["linear", "cubic"] | None, tyro.conf.arg(help="How.")], "linear"),
            ("said", Annotated[Literal["x", "y"], tyro.conf.arg(help="Either x or y.")], "x"),
            ("silent", Literal["x", "y"], "x"),
        ],
    )
    texts = {line.split()[0]: line[28:].strip() for line in page(kind) if line.startswith("  --")}
    assert texts == {
        "--letter": "Kind of table: a, b.",
        "--maybe": "How: linear, cubic.",
        "--said": "Either x or y.",
        "--silent": "x, y.",
    }


def test_odd_values_are_one_short_line():
    kind = make_dataclass(
        "Odd",
        [("many", tuple[int, ...], tuple(range(1000, 1040))), ("none", tuple[()], ()), ("lines", str, "a\nb")],
    )
    lines = page(kind)
    assert "  --many 1000 1001 1002 1003 1004 1005 1006 10..." in lines
    assert "  --lines a b" in lines


@pytest.mark.parametrize("columns", [1, 28, 40])
def test_a_terminal_may_be_narrow(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert "  --size 32" in "\n".join(page(Config))
