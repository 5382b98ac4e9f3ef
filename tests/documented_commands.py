"""The command lines of README and the documentation, in fences and in the text, and how to parse one and go no further.

A command of the text may stand for many: ``RECIPE`` and its like are filled in, and ``...`` is left out.
"""

import argparse
import contextlib
import importlib
import importlib.util
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gan_blocks.engine import find_recipe
from gan_blocks.engine.base.terminal import command_line
from gan_blocks.engine.commands import console
from gan_blocks.engine.runs import RecipeIdentity
from gan_blocks.engine.runs.folder import RunFolder

__all__ = [
    "NOT_PARSED",
    "PAGES",
    "ROOT",
    "Parsed",
    "commands_of",
    "find_main",
    "make_what_it_reads",
    "parse_and_stop",
    "recipe_of",
    "stop_after_parsing",
]

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHELLS = ("sh", "bash", "console")
PROGRAMS = ("gan-blocks", "python", "torchrun", "make", "pip", "pytest", "ruff", "accelerate")
STANDS_FOR = {
    "COMMAND": "sample",
    "FILE": "list_landmarks_celeba.txt",
    "N": "2",
    "NETWORK": "efflite0-128",
    "PRESET": "imagenet-128",
    "RECIPE": "biggan_deep",
    "RUN": "runs/NAME",
    "WORD": "grid",
    "folder:PATH": "folder:pets",
    "my_gan": "my_gan.py",
}
"""Words in capitals that the reader fills in. ``my_gan`` is the file's recipe once a package registers it."""
NAMES = {"--preset": "imagenet-128", "-m": "recipes.biggan_deep", "benchmarks.run": "demo"}
"""What NAME is, by the word before it."""
LAST_VALUES = {"--features": "efflite0-128", "--memorization": "1000", "--truncation-sweep": "1", "--hold-out": "0.1"}
"""Values for an option that the text names without one, at the end of a command."""
LEFT_OUT = {
    "sample": ({"--run", "--weights"}, ["--run", "runs/NAME"]),
    "neighbors": ({"--run"}, ["--run", "runs/NAME"]),
    "evaluate": ({"--run", "--images"}, ["--run", "runs/NAME"]),
    "prepare": ({"--data"}, ["--data", "folder:img_celeba", "--resolution", "64", "--out", "hq"]),
}
"""What the text does not repeat each time: if a command has none of these options, it is given those."""

NOT_PARSED = {
    "pip": "it would install packages; tests/test_packaging.py builds and reads the wheel",
    "accelerate": "tests/test_cookbook.py starts this very line",
    "ruff": "`make lint` runs it",
    "python -m tests.golden.update": "it has no options, and would write the file that tests/test_public_api.py reads",
    "python -m tests.oldest_torch": "it installs torch into a new environment",
}
"""The beginnings of command lines that are neither parsed nor run, and why."""


def commands_of(page: Path) -> list[str]:
    """The command lines of a page, each once, as one could type them."""
    text = page.read_text()
    found = [command for fence in FENCE.finditer(text) for command in _of_fence(fence[2], fence[3])]
    rest = FENCE.sub("", text)
    found += [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", rest)]
    filled = (_filled(command) for command in found)
    return list(dict.fromkeys(command for command in filled if command))


def _of_fence(language: str, body: str) -> Iterator[str]:
    if language not in SHELLS:
        return
    for line in body.replace("\\\n", " ").splitlines():
        prompt, typed = line.startswith("$ "), line.removeprefix("$ ")
        if prompt or language != "console":
            yield typed


def _filled(command: str) -> str | None:
    """The command with what it stands for; None: the words are no command."""
    command = command.removeprefix("srun ").partition(", then ")[0]
    if re.match(r"(#|export |\.venv$)", command):
        return None
    with contextlib.suppress(ValueError):
        words = shlex.split(command, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if not words or (program := Path(words[0]).name) not in PROGRAMS:
            return None
        words = [program, *(word for word in words[1:] if word != "...")]
        words = [_value(before, word) for before, word in zip(["", *words], words, strict=False)]
        if len(words) > 1:
            return shlex.join(_completed(words))
        return "make" if program == "make" else None
    return None


def _completed(words: list[str]) -> list[str]:
    """With what a command that the text cuts short leaves out."""
    program, *rest = words
    if program == "gan-blocks" and len(rest) == 1 and rest != ["presets"]:
        return [*words, "--help"]  # the text names a command
    if words[-1] in LAST_VALUES:
        words = [*words, LAST_VALUES[words[-1]]]
    if program == "torchrun" and words[-1] in ("-m", "2"):
        return [*words, *(["-m"] if words[-1] == "2" else []), "recipes.biggan_deep"]
    if "--truncation-sweep" in words and "--features" not in words:
        words += ["--features", "efflite0-64"]
    command = rest[0] if program == "gan-blocks" else rest[-1].removeprefix("recipes.")
    options, missing = LEFT_OUT.get(command, (set(rest), []))
    return words if options & set(rest) or "--help" in rest else [*words, *missing]


def _value(before: str, word: str) -> str:
    if word in ("NAME", "recipes.NAME", "recipes.studies.NAME", "benchmarks.NAME"):
        of_module = {"recipes.studies.NAME": "recipes.studies.latents", "benchmarks.NAME": "benchmarks.run"}
        return of_module.get(word, NAMES.get(before, word))
    return STANDS_FOR.get(word, word)


class Parsed(BaseException):
    """The command line has been parsed to its end, and its values have passed the checks of their dataclass."""


def parse_and_stop(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command line as its program does, and stop where that would begin to work.

    Raises:
        AssertionError: If it does not parse; the program has said why.
    """
    program, *words = shlex.split(command)
    if program == "make":
        dry = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert dry.returncode == 0, dry.stderr
    elif program == "pytest":
        paths = [word for before, word in zip(["", *words], words, strict=False) if "-" not in (before[:1], word[:1])]
        assert [path for path in paths if not (ROOT / path).exists()] == []
    else:
        with monkeypatch.context() as patches:
            stop_after_parsing(patches)
            patches.delitem(sys.modules, "my_gan", raising=False)  # of another folder
            try:
                status = find_main(program, words, patches)()
            except Parsed:
                return
            except SystemExit as end:
                status = end.code
        assert status == 0, f"{command}: status {status}"
        assert "--help" in words, f"{command} was carried out"


def stop_after_parsing(patches: pytest.MonkeyPatch) -> None:
    """Let every command raise :class:`Parsed` where it would begin to work."""
    _stop_after(patches, command_line, "_parse")
    _stop_after(patches, argparse.ArgumentParser, "parse_args")


def _stop_after(patches: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    parse = getattr(owner, name)

    def parse_then_stop(*args: Any, **kwargs: Any) -> None:
        parse(*args, **kwargs)
        raise Parsed

    patches.setattr(owner, name, parse_then_stop)


def find_main(program: str, words: Sequence[str], patches: pytest.MonkeyPatch) -> Callable[[], Any]:
    """The function that a command line calls, with its words in place."""
    if program == "torchrun":
        words = _after_launcher(words)
    elif program == "gan-blocks":
        return lambda: console.main(words)
    if words[0] == "my_gan.py":
        return lambda: find_recipe(words[0]).main(words[1:])
    if words[0] != "-m":  # a program of a page, which has no options
        assert words[1:] == []
        return _stop
    name = words[1]
    patches.setattr(sys, "argv", words[1:])
    if importlib.util.find_spec(name).submodule_search_locations is not None:  # type: ignore[union-attr]
        name += ".__main__"
    module = importlib.import_module(name)
    owner = module if hasattr(module, "main") else getattr(module, "RECIPE", None)
    if owner is None:  # gan-blocks by another name
        return lambda: console.main([name.removeprefix("recipes."), *words[2:]])
    main: Callable[[], Any] = owner.main
    return main


def _stop() -> None:
    raise Parsed


def _after_launcher(words: Sequence[str]) -> list[str]:
    """What ``torchrun`` starts, as it is typed after ``python``."""
    from torch.distributed.run import get_args_parser

    options, rest = get_args_parser().parse_known_args(list(words))
    assert rest == []
    module = ["-m"] if options.module else []
    script = [options.training_script, *options.training_script_args]
    return [*module, *(script[1:] if script[0] == "--" else script)]


def recipe_of(words: Sequence[str]) -> str:
    """The recipe that a command line trains, or whose run it reads."""
    for before, word in itertools.pairwise(words):
        if before in ("train", "describe", "--recipe") or word == "my_gan.py":
            return word
        if word.startswith("recipes.") and word.count(".") == 1:
            return word.removeprefix("recipes.")
    return "biggan_deep"


def make_what_it_reads(command: str, folder: Path) -> None:
    """Make the folders of the runs that a command line continues or starts from, without a checkpoint."""
    words = shlex.split(command)
    for before, word in itertools.pairwise(words):
        if before in ("--resume", "--init-from", "--config") and word.startswith("runs/"):
            run = folder / word.removesuffix("/config.json")
            recipe = find_recipe(recipe_of(words))
            preset = next(iter(recipe.presets))
            identity: RecipeIdentity = recipe.identity
            shutil.rmtree(run, ignore_errors=True)
            RunFolder.create_at(run, identity, preset, recipe.preset_values(preset) or {})
