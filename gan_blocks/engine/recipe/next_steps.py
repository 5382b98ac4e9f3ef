"""What to do next: the block at the end of a command, whose lines can be copied into a shell.

Tested in ``tests/engine/recipe/test_next_steps.py``.
"""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from gan_blocks.engine.base.files import as_seen_from_here
from gan_blocks.engine.base.parallel.processes import current_world
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.registry import name_for_commands

__all__ = [
    "Steps",
    "after_divergence",
    "after_training",
    "console_command",
    "next_steps",
    "of_run",
    "print_next_steps",
    "same_command",
]

Steps = Mapping[str, Sequence[object]]
"""What can be done, and the words to type for it, or the file to open."""

MODULES = {"gan-blocks": "gan_blocks.engine.commands", "torchrun": "torch.distributed.run"}
"""Programs that are modules, too."""
STARTS = {"run_dir", "resume", "init_from", "config"}
"""Options of a session that its continuation does not repeat."""


def next_steps(steps: Steps) -> list[str]:
    """The lines of the block; none where there is nothing to do.

    Example:
        >>> next_steps({"report": [Path("runs/my run/report.html")], "draw": ["gan-blocks", "sample"]})
        ['Next:', "  report: 'runs/my run/report.html'", '  draw:   gan-blocks sample']
    """
    width = max(map(len, steps), default=0) + 1
    lines = [f"  {f'{name}:':<{width}} {shlex.join(map(str, words))}" for name, words in steps.items()]
    return ["Next:", *lines] if lines else []


def print_next_steps(steps: Steps) -> None:
    """Print the block."""
    for line in next_steps(steps):
        print(line)


def console_command(*words: object) -> list[object]:
    """The words of a ``gan-blocks`` command."""
    return [*_program("gan-blocks"), *words]


def same_command(prog: str, args: Sequence[str] | None) -> list[object]:
    """The words of a command line itself, which continues what it began; ``args`` None: those of this process."""
    return [*_started(prog), *(sys.argv[1:] if args is None else args)]


def of_run(run: Path, recipe: str | None) -> list[object]:
    """The options that name a run, and its recipe where that is not registered."""
    return ["--run", run, *([] if recipe is None else ["--recipe", recipe])]


def after_training(recipe: Recipe[Any], prog: str, run: Path, options: RunOptions, step: int, planned: int) -> Steps:
    """What to do with a run after a session.

    Args:
        recipe: The recipe.
        prog: How its command line was started.
        run: The run's folder.
        options: Those of the session, which the next one should have, too.
        step: Where it stands.
        planned: Its length.
    """
    named = of_run(run, name_for_commands(recipe))
    if options.steps is None or step >= options.steps:  # stopped before that, it is continued up to there
        options = replace(options, steps=2 * step if step >= planned else None)
    return {
        "report": [run / "report.html"],
        "draw": console_command("sample", *named),
        "evaluate": console_command("evaluate", *named),
        "train longer" if step >= planned else "continue": [*_started(prog), "--resume", run, *_words(options)],
    }


def after_divergence(prog: str, run: Path, config: Any) -> str:
    """The command that trains anew from the weights of a run's last checkpoint, at half its learning rates."""
    rates = {name: getattr(config, name) for name in ("generator_lr", "discriminator_lr") if hasattr(config, name)}
    slower = [word for name, rate in rates.items() for word in (f"--{name.replace('_', '-')}", f"{rate / 2:g}")]
    return shlex.join(map(str, [*_started(prog), "--init-from", run, *slower]))


def _words(options: RunOptions) -> list[object]:
    """The options that set what differs from the defaults."""
    if current_world().size > 1:  # each process has a device of its own
        options = replace(options, device=options.device.partition(":")[0])
    given = {one.name: getattr(options, one.name) for one in fields(options)}
    changed = {one.name: given[one.name] for one in fields(options) if given[one.name] != one.default}
    words: list[object] = []
    for name, value in changed.items():
        option = name.replace("_", "-")
        if name in STARTS:
            continue
        words += [f"--{option}" if value else f"--no-{option}"] if isinstance(value, bool) else [f"--{option}", value]
    return words


def _started(prog: str) -> list[object]:
    """A command line as it was started, with as many processes."""
    first, *rest = shlex.split(prog)
    if (count := current_world().size) > 1:
        module = ["-m", MODULES[first]] if first in MODULES else []
        return [*_program("torchrun"), "--nproc-per-node", count, *module, *rest]
    return [*_program(first), *rest] if first in ("python", "gan-blocks") else [first, *rest]


def _program(name: str) -> list[object]:
    """A program of this Python: by its name where a shell finds it, else by its path or as a module."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    in_environment = sys.prefix != sys.base_prefix  # one that is not activated: the name is another Python's
    if found is not None and (not in_environment or Path(found).parent == beside.parent):
        return [name]
    if beside.exists():
        return [as_seen_from_here(beside)]
    return [*_program("python"), "-m", MODULES[name]] if name in MODULES else [sys.executable]
