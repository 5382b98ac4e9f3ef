"""Type thousands of command lines, most of them wrong, and see whether each ends in one line or in what was asked for.

    python -m benchmarks.trials.command_lines [--trials 5000] [--seed 0]

Options are those that each command's ``--help`` lists; values are drawn from numbers at and beyond every limit, words,
paths of all kinds, and now and then what belongs there. Networks are tiny and a training has two steps, so that what is
accepted ends soon.
"""

import contextlib
import io
import itertools
import random
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.trials.children import RECIPES, Command, report, run_in_child
from benchmarks.trials.tiny_data import write_data
from gan_blocks.engine import run_console_command
from recipes import convert, mixture_of_gaussians
from recipes.studies import latents, orthogonal, stacked_mnist, top_k

NUMBERS = [
    *("0", "1", "2", "3", "-1", "7", "100", "0.5", "1e-3", "-0.0", "1e400", "nan", "inf", "-inf", "1e30", "2,500"),
    *("2147483647", "2147483648", "9223372036854775807", "9223372036854775808", "9" * 25, "1_000", "0x10", "1/2", "٣"),
]
# Options whose large values are valid and take hours.
LENGTHS = {
    "--steps",
    "--planned-steps",
    "--minutes",
    "--num",
    "--standing-batches",
    "--discriminator-steps",
    "--frames",
}
LENGTHS |= {"--threads"}  # a thousand need more address space than a trial is given
LENGTHS |= {"--seeds", "--evaluation-samples", "--ms-ssim", "--epochs", "--swd-images", "--processes"}
LONG = {"100", "2,500", "1_000", "1e30", "2147483647", "2147483648", "9223372036854775807"}
WORDS = [
    "",
    " ",
    "x",
    "None",
    "True",
    "false",
    "auto",
    "cpu",
    "cuda:7",
    "fp32",
    "bf16",
    "ä",
    "\udcff",
    "a\nb",
    "--",
    "-",
    "=",
]
PATHS = [
    *(
        "/nowhere/at/all",
        "/dev/null",
        "/dev/full",
        "/dev",
        "/proc/1/mem",
        ".",
        "..",
        "/",
        "~",
        "~nobody-of-that-name/x",
    ),
    *("a" * 300, "a/" * 600, "data.npz", "pictures", "run", "new", "text.txt", "pipe", "loop", "npz:data.npz", "npz:"),
    *(
        "folder:pictures",
        "folder:data.npz",
        "npz:pictures",
        "shards:pictures",
        "folder:pipe",
        "npz:pipe",
        "cifar10:run",
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry the trials out; the exit status is 1 if one went wrong."""
    verdict = "{count} command lines led to a traceback, a hang or no clear end"
    return report(trials, argv, about=__doc__, count=5000, verdict=verdict)


class Line(NamedTuple):
    """What every line of a command begins with: networks so small that it ends soon."""

    command: Command
    words: list[str]
    status: int = 0
    """How it ends without further options."""


def trials(folder: Path, count: int, seed: int) -> Iterator[tuple[str, int | None, str | None]]:
    """Carry out so many trials; gives for each what was typed, the exit status, and what is wrong with that.

    Raises:
        RuntimeError: If a line ends otherwise than it should without further options, which it would hide.
    """
    rng = random.Random(seed)
    data = write_data(folder / "data.npz")
    place = folder / "place"
    template = folder / "template"
    _furnish(template, data)
    for name, line in LINES.items():
        _renew(place, template)
        outcome = run_in_child(line.command, line.words, place, timeout=120)
        if outcome.status != line.status:
            raise RuntimeError(f"{name} {' '.join(line.words)}: status {outcome.status}: {outcome.said}")
    options = {name: _options_of(line) for name, line in LINES.items()}
    for name in options:
        if name.startswith("study "):
            options[name].remove("--out")
    _renew(place, template)
    for _ in range(count):
        name = rng.choice(list(LINES))
        words = [*LINES[name].words, *_some_options(options[name], rng)]
        if rng.random() < 0.05:
            rng.shuffle(words)
        outcome = run_in_child(LINES[name].command, words, place, timeout=120)
        if outcome.status == 0 or rng.random() < 0.02:  # it may have written something
            _renew(place, template)
        yield f"{name} {' '.join(words)}", outcome.status, outcome.fault()


def _renew(place: Path, template: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place, symlinks=True)


def _furnish(place: Path, data: Path) -> None:
    """Make the folder in which commands are typed: a run, pictures, and things that are none."""
    (place / "pictures").mkdir(parents=True)
    shutil.copy(data, place / "data.npz")
    (place / "text.txt").write_text("no image")
    (place / "loop").symlink_to("loop")
    recipe, options = RECIPES["sngan"]
    outcome = run_in_child(recipe.main, [*options, "--data", "npz:data.npz", "--steps", "2", "--run-dir", "run"], place)
    if outcome.status != 0:
        raise RuntimeError(f"the run to try things on does not train: {outcome.said}")


def _lines() -> dict[str, Line]:
    """All commands by name."""
    lines = {
        name: Line(recipe.main, [*options, "--data", "npz:data.npz", "--steps", "2", "--run-dir", "new"])
        for name, (recipe, options) in RECIPES.items()
    }
    of_run = {
        "sample": ["--num", "4", "--out", "out.npz"],
        "evaluate": ["--num", "12"],
        "neighbors": ["--num", "2", "--by", "pixels"],
    }
    for name, words in of_run.items():
        lines[name] = Line(partial(_console, name), ["--run", "run", *words])
    pictures = {"truncation": "out.png", "classes": "out", "interpolation": "out.gif", "walk": "out.gif"}
    for word, out in pictures.items():
        lines[f"sample {word}"] = Line(partial(_console, "sample"), [word, "--run", "run", "--out", out])
    words = ["--data", "npz:data.npz", "--out", "store", "--resolution", "16"]
    lines["prepare"] = Line(partial(_console, "prepare"), words)
    lines["describe"] = Line(partial(_console, "describe"), ["sngan"])
    lines["presets"] = Line(partial(_console, "presets"), [])
    words = ["--from", "biggan-pytorch", "--generator", "data.npz"]  # which has no weights
    lines["convert"] = Line(convert.main, words, status=2)
    tiny = ["--modes", "25", "--seeds", "1", "--hidden-units", "4", "--batch-size", "8", "--evaluation-samples", "100"]
    lines["mixture_of_gaussians"] = Line(mixture_of_gaussians.main, [*tiny, "--steps", "2", "--threads", "1"])
    for study in (latents, orthogonal, stacked_mnist, top_k):  # the folder of its results is a file: it ends at once
        lines[f"study {study.__name__.rpartition('.')[2]}"] = Line(study.main, ["--out", "text.txt"], status=2)
    return lines


def _console(name: str, args: Sequence[str]) -> int:
    return run_console_command(name, args, prog=f"gan-blocks {name}")


LINES = _lines()


def _options_of(line: Line) -> list[str]:
    """What ``--help`` lists, after the word or recipe that a line begins with."""
    page = io.StringIO()
    first = itertools.takewhile(lambda word: not word.startswith("-"), line.words)
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        line.command([*first, "--help"])
    return sorted(set(re.findall(r"--[a-z][a-z0-9-]*", page.getvalue().replace("--[no-]", "--"))) - {"--help"})


def _some_options(names: Sequence[str], rng: random.Random) -> list[str]:
    words: list[str] = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        name = rng.choice(names) if names and rng.random() < 0.97 else rng.choice(["--nothing", "-x", "--steps "])
        words.append(name)
        pool = rng.choice([NUMBERS, NUMBERS, WORDS, PATHS])
        values = [value for value in pool if name not in LENGTHS or value not in LONG]
        words += [rng.choice(values) for _ in range(rng.choice([0, *[1] * 8, 2, 3]))]
    return words


if __name__ == "__main__":
    sys.exit(main())
