"""The console, tried with commands of its own and of others."""

import contextlib
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
import torch

import gan_blocks
from gan_blocks.engine.commands import console
from tests.engine.own_gan import ROOT

COMMANDS = ["train", "presets", "sample", "evaluate", "neighbors", "describe", "prepare", "convert"]


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_help_lists_every_command(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert console.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("  gan-")] == COMMANDS


def test_every_command_has_a_summary_and_a_module():
    for name in console.COMMANDS:
        assert callable(console._find(name))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help_under_its_own_name(name: str, capsys: pytest.CaptureFixture[str]):
    with contextlib.suppress(SystemExit):  # how the parser ends
        assert console.main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: gan-blocks {name}")


def test_the_version_is_that_of_the_library_and_of_torch(capsys: pytest.CaptureFixture[str]):
    assert console.main(["--version"]) == 0
    versions = f"gan_blocks {gan_blocks.__version__}, torch {torch.__version__.partition('+')[0]}"
    assert capsys.readouterr().out.startswith(versions)


def test_an_option_that_must_be_given_is_named(capsys: pytest.CaptureFixture[str]):
    assert console.main(["evaluate"]) == 2
    assert capsys.readouterr().err == "evaluate: error: --run must be given. See --help.\n"


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert console.main(["trian"]) == 2
    expected = f"the first word must be one of {', '.join(COMMANDS)}, but got trian. Perhaps you meant train."
    assert capsys.readouterr().err == f"gan-blocks: error: {expected}\n"


def test_a_package_adds_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    added = EntryPoint("shout", "tests.engine.commands.test_console:shout", console.GROUP)

    def found(group: str, **wanted: Any) -> EntryPoints:
        return EntryPoints([added]).select(group=group, **wanted)

    monkeypatch.setattr(console, "entry_points", found)
    assert console.main(["shout", "now"]) == 3
    assert capsys.readouterr().out == "gan-blocks shout: NOW\n"
    console.main([])
    assert "  shout      the console, tried with commands of its own and of others\n" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "buffered"), [(["--help"], False), (["sample", "--help"], True)])
def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word(words: list[str], buffered: bool):
    command = [sys.executable, "-m", "gan_blocks.engine.commands", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def shout(argv: list[str], *, prog: str) -> int:
    sys.stdout.write(f"{prog}: {argv[0].upper()}\n")
    return 3


def test_the_script_and_the_module_are_the_console():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"gan-blocks": "gan_blocks.engine.commands.console:main"}
    words = [sys.executable, "-W", "error", "-m", "gan_blocks.engine.commands", "nonsense"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("gan-blocks: error: the first word must be one of ")


ASK_ALL = """
import contextlib, runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    with contextlib.suppress(SystemExit):
        runpy.run_module(f"recipes.{name}", run_name="__main__")
"""


@pytest.mark.slow
def test_each_command_is_a_module_of_the_recipes_too():
    names = ["sample", "evaluate", "neighbors", "prepare", "describe", "convert"]
    words = [sys.executable, "-c", ASK_ALL, *names]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    usages = [line.split()[3] for line in done.stdout.splitlines() if line.startswith("usage: python -m ")]
    assert usages == [f"recipes.{name}" for name in names]
