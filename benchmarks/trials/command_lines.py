"""Type thousands of command lines, most of them wrong, and see whether each ends in one line or in what was asked for.

    python -m benchmarks.trials.command_lines [--trials 5000] [--seed 0]

Options are those that each command's ``--help`` lists; values are drawn from numbers at and beyond every limit, words,
paths of all kinds, and now and then what belongs there. Networks are tiny and a training has two steps, so that what is
accepted ends soon.
"""

import contextlib
import io
import random
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.trials.children import RECIPES, Command, report, run_in_child
from benchmarks.trials.tiny_data import write_data
from gan_blocks.engine import run_console_command
from recipes import convert, mixture_of_gaussians
from recipes.studies import latents, orthogonal, stacked_mnist, top_k

NUMBERS = [
    *("0", "1", "2", "3", "-1", "7", "100", "0.5", "1e-3", "-0.0", "1e400", "nan", "inf", "-inf", "1e30", "2,500"),
    *("2147483647", "2147483648", "9223372036854775807", "9223372036854775808", "9" * 25, "1_000", "0x10", "1/2", "٣"),
]
# What would only make a command work for hours, and is right to.
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


def trials(folder: Path, count: int, seed: int) -> Iterator[tuple[str, int | None, str | None]]:
    """Carry out so many trials; gives for each what was typed, the exit status, and what is wrong with that."""
    rng = random.Random(seed)
    data = write_data(folder / "data.npz")
    place = folder / "place"
    template = folder / "template"
    _furnish(template, data)
    commands = _commands()
    options = {name: _options_of(command) for name, (command, _) in commands.items()}
    for name in options:
        if name.startswith("study "):
            options[name].remove("--out")
    for _ in range(count):
        name = rng.choice(list(commands))
        command, base = commands[name]
        if not place.exists():
            shutil.copytree(template, place, symlinks=True)
        words = [*base, *_some_options(options[name], rng)]
        if rng.random() < 0.05:
            rng.shuffle(words)
        outcome = run_in_child(command, words, place, timeout=120)
        if outcome.status == 0 or rng.random() < 0.02:  # it may have written something
            shutil.rmtree(place)
        yield f"{name} {' '.join(words)}", outcome.status, outcome.fault()


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


def _commands() -> dict[str, tuple[Command, list[str]]]:
    """Each command with the words that every line of it has: networks so small that it ends soon."""
    commands: dict[str, tuple[Command, list[str]]] = {
        name: (recipe.main, [*options, "--data", "npz:data.npz", "--steps", "2", "--run-dir", "new"])
        for name, (recipe, options) in RECIPES.items()
    }
    of_run = {"sample": ["--num", "4"], "evaluate": ["--num", "12"], "neighbors": ["--num", "2", "--by", "pixels"]}
    for name, words in of_run.items():
        commands[name] = (partial(_console, name), ["--run", "run", *words])
    commands["sample"][1].extend(["--out", "out.npz"])
    for word in ("truncation", "classes", "interpolation", "walk"):
        commands[f"sample {word}"] = (partial(_console, "sample"), [word, "--run", "run", "--out", "out"])
    commands["prepare"] = (partial(_console, "prepare"), ["--data", "npz:data.npz", "--out", "store"])
    commands["describe"] = (partial(_console, "describe"), ["sngan"])
    commands["presets"] = (partial(_console, "presets"), [])
    commands["convert"] = (convert.main, ["--from", "biggan-pytorch", "--generator", "data.npz"])
    tiny = ["--modes", "25", "--seeds", "1", "--hidden-dim", "4", "--batch-size", "8", "--evaluation-samples", "100"]
    commands["mixture_of_gaussians"] = (mixture_of_gaussians.main, [*tiny, "--steps", "2", "--threads", "1"])
    for study in (latents, orthogonal, stacked_mnist, top_k):  # a study of no length: its folder is a file
        commands[f"study {study.__name__.rpartition('.')[2]}"] = (study.main, ["--out", "text.txt"])
    return commands


def _console(name: str, args: Sequence[str]) -> int:
    return run_console_command(name, args, prog=f"gan-blocks {name}")


def _options_of(command: Command) -> list[str]:
    """What ``--help`` lists."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        command(["--help"])
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
