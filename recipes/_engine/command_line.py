"""The command line of every recipe: options with help, and errors as one line with exit status 2."""

import argparse
import contextlib
import dataclasses
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import tyro

from recipes._engine.errors import UserError
from recipes._engine.options import RunOptions
from recipes._engine.recipe import Recipe, choose_preset, config_from_json, config_to_json
from recipes._engine.run_folder import CONVERTED, RunFolder, compare_configs

__all__ = ["TrainingCommand", "parse_choice", "parse_options", "parse_training_command", "run_command"]

Options = TypeVar("Options")

# A run may be continued after its data moved to another place; every other field of a Config is fixed at the start.
CHANGEABLE_ON_RESUME = ("data",)

FINE_TUNED = "fine-tuned"  # in the place of the preset, where the Config is that of another run


@dataclasses.dataclass(frozen=True)
class TrainingCommand:
    """What ``python -m recipes.NAME`` was asked to do."""

    preset: str
    config: Any
    options: RunOptions
    run: RunFolder | None
    """The run to continue, or None for a new one."""


def run_command(name: str, command: Callable[[], int]) -> int:
    """Run the body of a command; what the user can mend becomes one line on stderr and status 2, ^C one and 130."""
    try:
        return command()
    except UserError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: stopped.", file=sys.stderr)
        return 130


def parse_options(kind: type[Options], *, prog: str, description: str, args: Sequence[str] | None) -> Options:
    """Parse the command line into the dataclass ``kind``, whose field docstrings are the help texts.

    Raises:
        UserError: If an option is unknown or a value does not fit.
    """
    return _parse(kind, prog=prog, description=description, args=args)


def parse_choice(kinds: Mapping[str, type[Any]], *, prog: str, description: str, args: Sequence[str] | None) -> Any:
    """Parse a command line whose first word chooses one of several dataclasses; without such a word it is the first.

    The defaults of the first must be complete.

    Raises:
        UserError: If the word is none of ``kinds``, an option is unknown or a value does not fit.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
        args.insert(0, next(iter(kinds)))
    elif not args[0].startswith("-") and args[0] not in kinds:
        raise UserError(f"the first word must be one of {', '.join(kinds)}, but got {args[0]}.")
    choices = tuple(Annotated[kind, tyro.conf.subcommand(name=name)] for name, kind in kinds.items())
    union: Any = Union[choices]  # noqa: UP007 - the kinds are known here only
    default = next(iter(kinds.values()))()  # which the help names
    return _parse(union, prog=prog, description=description, args=args, default=default)


def parse_training_command(recipe: Recipe, *, prog: str, args: Sequence[str] | None) -> TrainingCommand:
    """Parse the command line of a training recipe.

    Every field of the recipe's Config and of RunOptions is an option. The defaults of the Config come from
    ``--preset``, or from the run that ``--resume``, ``--run-dir`` or ``--init-from`` names.

    Raises:
        UserError: If an option is unknown, a value does not fit, or the run was started with another Config.
    """
    args = list(sys.argv[1:] if args is None else args)
    early = _early_options(args)
    run = _existing_run(recipe, early)
    saved = None if run is None else config_from_json(recipe, run.config())
    origin = None if early.init_from is None or run is not None else _open_run(recipe, Path(early.init_from))
    if origin is not None:
        if early.preset is not None:
            raise UserError("--init-from takes the Config of that run, so that --preset has no place beside it.")
        preset, default = FINE_TUNED, config_from_json(recipe, origin.config())
    else:
        preset = _preset_of_run(recipe, early.preset, run)
        default = recipe.PRESETS[preset]() if saved is None else saved

    # The field types are only known here: the Config is the recipe's, the choices of --preset are its presets.
    command_type: type[Any] = dataclasses.make_dataclass(
        "Command",
        [
            (
                "preset",
                Annotated[
                    Literal[tuple(dict.fromkeys([*recipe.PRESETS, preset]))],
                    tyro.conf.arg(help="Named settings that the options below start from."),
                ],
                preset,
            ),
            ("training", Annotated[recipe.Config, tyro.conf.OmitArgPrefixes], default),
            ("session", Annotated[RunOptions, tyro.conf.OmitArgPrefixes], RunOptions()),
        ],
        frozen=True,
    )
    parsed = _parse(command_type, prog=prog, description=recipe.__doc__ or "", args=args)
    if saved is not None:
        compare_configs(config_to_json(saved), config_to_json(parsed.training), allowed=CHANGEABLE_ON_RESUME)
    return TrainingCommand(preset=preset, config=parsed.training, options=parsed.session, run=run)


def _early_options(args: list[str]) -> argparse.Namespace:
    """The options that decide what the other options' defaults are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("preset", "resume", "run_dir", "init_from"):
        spellings = {f"--{name}", f"--{name.replace('_', '-')}"}  # tyro knows both
        parser.add_argument(*spellings, dest=name, nargs="?")
    return parser.parse_known_args(args)[0]


def _existing_run(recipe: Recipe, early: argparse.Namespace) -> RunFolder | None:
    if early.resume is not None:
        run = _open_run(recipe, Path(early.resume))
    elif early.run_dir is not None and RunFolder.holds_run(Path(early.run_dir)):
        run = _open_run(recipe, Path(early.run_dir))
    elif early.run_dir is not None and Path(early.run_dir).exists() and not Path(early.run_dir).is_dir():
        raise UserError(f"--run-dir must be a folder, but {early.run_dir} is a file.")
    else:
        return None
    if run.preset == CONVERTED:
        remedy = f"start a new run with --init-from {run.path}"
        raise UserError(f"{run.path} holds converted weights and no training to continue: {remedy}.")
    return run


def _open_run(recipe: Recipe, path: Path) -> RunFolder:
    run = RunFolder.open(path)
    name = recipe.__name__.removeprefix("recipes.")
    if run.recipe != name:
        raise UserError(f"{run.path} holds a run of recipes.{run.recipe}, not of recipes.{name}.")
    return run


def _preset_of_run(recipe: Recipe, asked: str | None, run: RunFolder | None) -> str:
    if run is not None:
        if asked not in (None, run.preset):
            raise UserError(f"--preset is {asked} here, but the run in {run.path} was started with {run.preset}.")
        return run.preset
    return choose_preset(recipe, asked)


def _parse(
    kind: type[Options], *, prog: str, description: str, args: Sequence[str] | None, default: Options | None = None
) -> Options:
    """Call tyro, and turn its boxed error into one line."""
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(
                kind,
                prog=prog,
                description=description.replace("\n\n* ", "\n* "),  # tyro sets lists apart by itself
                args=args,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_first_paragraph(message.getvalue())) from None


def _first_paragraph(box: str) -> str:
    """The text of a boxed message up to its first separating line; where UTF-8 is not at hand, boxes are of ``+-|``."""
    words: list[str] = []
    for line in box.splitlines():
        text = line.strip().strip("│|").strip()
        if text.startswith(("╭", "╰", "+")) or (not words and not text.strip("-")):
            continue
        if not text.strip("─-"):
            break
        words.append(text)
    sentence = " ".join(words).rstrip(".")
    return f"{sentence}. See --help."
