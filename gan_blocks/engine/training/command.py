"""The command line of a training.

Tested in ``tests/engine/training/test_command.py``.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.terminal.command_line import parse_options, parse_some
from gan_blocks.engine.base.terminal.help_page import Examples
from gan_blocks.engine.data.config import ImageFields
from gan_blocks.engine.data.sources import absolute, parse_source, refuse_run_inside_images, shape_of_source
from gan_blocks.engine.recipe.config_json import as_options, check_config_saves, config_to_json
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.runs.config_file import CONFIG_NAME, compare_configs, read_config
from gan_blocks.engine.runs.folder import CONVERTED, RunFolder
from gan_blocks.engine.runs.identity import RecipeIdentity

__all__ = ["NEW_RUNS", "TrainingCommand", "parse_training_command", "parse_with_config"]

Options = TypeVar("Options")

# A run may be continued after its data moved to another place; every other field of a Config is fixed at the start.
CHANGEABLE_ON_RESUME = ("data",)
NEW_RUNS = Path("runs")

# In the place of a preset's name: the Config is that of the run whose weights were taken, or of a file of no preset.
FINE_TUNED, CUSTOM = "fine-tuned", "custom"


@dataclasses.dataclass(frozen=True)
class TrainingCommand:
    """What a recipe's command line asks for."""

    preset: str
    config: Any
    options: RunOptions
    run: RunFolder | None
    """The run to continue, or None for a new one."""
    prog: str = ""
    """How the command line was started."""
    notes: tuple[str, ...] = ()
    """What the user should know of how the options came about."""


def parse_training_command(recipe: Recipe[Any], *, prog: str, args: Sequence[str] | None) -> TrainingCommand:
    """Parse the command line of a training recipe.

    Every field of the recipe's Config and of RunOptions is an option. The defaults of the Config come from
    ``--preset``, or from the run that ``--resume``, ``--run-dir``, ``--init-from`` or ``--config`` names.

    Raises:
        UserError: If an option is unknown, a value does not fit, or the run was started with another Config.
    """
    args = list(sys.argv[1:] if args is None else args)
    start = parse_some(_Start, args)
    run = _existing_run(recipe, start)
    # Without a checkpoint there is nothing that another Config would not fit.
    begun = run is not None and bool(run.saved_steps())
    saved = _saved_config(recipe, run, args) if run is not None and (begun or start.resume is not None) else None
    origin = None if start.init_from is None or saved is not None else _open_run(recipe, start.init_from)
    preset, default = _start_values(recipe, start, args, run, saved, origin)
    about = "\n\n".join(recipe.description.split("\n\n")[:2])
    of_run = saved is not None or origin is not None or start.config is not None
    offered = None if start.config is not None or preset == FINE_TUNED else preset
    config, options = _parse_parts(
        recipe,
        offered,
        default,
        RunOptions,
        prog,
        about,
        args,
        () if of_run else _examples(recipe, prog),
        of_run=of_run,
    )
    source = origin if saved is None else run
    notes = () if source is None else _younger_options(default, source.config())
    if not of_run:
        config, notes = _fitted_to_data(config, args)
    check_config_saves(config)
    if saved is None and origin is None:
        refuse_run_inside_images(config.data, options.run_dir or NEW_RUNS)
    if saved is not None and begun:
        compare_configs(
            config_to_json(saved), config_to_json(config), allowed=CHANGEABLE_ON_RESUME, remedy=_remedy(run)
        )
    return TrainingCommand(preset=preset, config=config, options=options, run=run, prog=prog, notes=notes)


def _start_values(
    recipe: Recipe[Any],
    start: "_Start",
    args: Sequence[str],
    run: RunFolder | None,
    saved: Any | None,
    origin: RunFolder | None,
) -> tuple[str, Any]:
    """The preset's name, and the Config that gives the options' defaults.

    Args:
        recipe: What is trained.
        start: The options that decide.
        args: The command line.
        run: The run in the folder that is named, if there is one.
        saved: The Config of that run, where it is fixed.
        origin: The run whose weights are taken, if some are.
    """
    if start.preset is not None and (origin is not None or start.config is not None):
        option = "--config" if origin is None else "--init-from"
        raise UserError(f"{option} takes the Config of that run, so --preset cannot be given with it.")
    if origin is not None:
        return FINE_TUNED, _saved_config(recipe, origin, args)
    fixed = run if saved is not None else None
    if start.config is not None:  # typed again, it must be that of the run
        preset, config = _config_of_file(recipe, start.config, args)
        return preset if fixed is None else fixed.preset, config
    preset = _preset_of_run(recipe, start.preset, fixed)
    return preset, recipe.presets[preset]() if saved is None else saved


def parse_with_config(
    recipe: Recipe[Any], kind: type[Options], *, prog: str, description: str, args: Sequence[str]
) -> tuple[Any, Options]:
    """Parse a command line of ``--preset``, the options of a recipe's Config and those of ``kind``.

    Raises:
        UserError: If an option is unknown or a value does not fit.
    """
    preset = recipe.choose_preset(parse_some(_Start, args).preset)
    return _parse_parts(recipe, preset, recipe.presets[preset](), kind, prog, description, args)


def _saved_config(recipe: Recipe[Any], run: RunFolder, args: Sequence[str]) -> Any:
    """The Config of a run, with its data where they were found last.

    Raises:
        UserError: If it is damaged, or the data are not there any more and no other place is given.
    """
    return _with_data_of(run, recipe.config_from_json(run.config()), args)


def _config_of_file(recipe: Recipe[Any], path: Path, args: Sequence[str]) -> tuple[str, Any]:
    """Preset and Config of a ``config.json``, or of that in a run's folder; see :func:`_saved_config`."""
    path = path / CONFIG_NAME if path.is_dir() else path
    try:
        saved = read_config(path)
    except UserError as error:
        raise UserError(f"--config must name the config.json of a run, but {error}") from None
    made_by = RecipeIdentity.from_dict(saved)
    if not made_by.is_of(recipe.identity):
        raise UserError(f"{path} is of a run of {made_by}, not of {recipe.identity}.")
    try:
        config = recipe.config_from_json(saved["config"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    preset = saved["preset"] if saved["preset"] in recipe.presets else CUSTOM
    return preset, _with_data_of(RunFolder(path.parent, made_by, preset), config, args)


def _with_data_of(run: RunFolder, config: Any, args: Sequence[str]) -> Any:
    record = run.data()
    if record is not None and absolute(config.data) != record["source"]:
        config = dataclasses.replace(config, data=record["source"])
    if not _is_given("data", args):
        source = parse_source(config.data)
        if source.path is not None and not source.path.exists():
            raise UserError(f"{config.data}, the data of this run, is not there: give the new place with --data.")
    return config


def _younger_options(config: Any, saved: Mapping[str, Any]) -> tuple[str, ...]:
    """A line that names the options that a run was saved without."""
    values = {name: value for name, value in config_to_json(config).items() if name not in saved}
    return (f"Options that are newer than the run have their defaults: {as_options(values)}.",) if values else ()


def _fitted_to_data(config: Any, args: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """The Config of new networks with the channels and classes of the data, and a note if they are others.

    A number that the user gives is taken, and so is that of a preset, or of a recipe's own Config, which sets another
    than every Config has.
    """
    asked = {
        name: getattr(config, name) == field.default and not _is_given(name, args)
        for name, field in ImageFields.__dataclass_fields__.items()
        if name in ("image_channels", "num_classes")
    }
    if not any(asked.values()):
        return config, ()
    shape = shape_of_source(parse_source(config.data), None if asked["num_classes"] else config.num_classes)
    if shape is None:
        return config, ()
    found = {"image_channels": shape.channels, "num_classes": shape.num_classes}
    if shape.num_classes == 1:  # most often a path one level off, of which the reading tells
        del found["num_classes"]
    taken = {name: value for name, value in found.items() if asked[name] and value != getattr(config, name)}
    if not taken:
        return config, ()
    words = " and ".join(f"--{name.replace('_', '-')} {value}" for name, value in taken.items())
    return dataclasses.replace(config, **taken), (f"Taken from the data: {words}.",)


def _is_given(name: str, args: Sequence[str]) -> bool:
    """Whether the command line has an option, in either of its spellings."""
    return f"--{name.replace('_', '-')}" in (word.partition("=")[0].replace("_", "-") for word in args)


def _remedy(run: RunFolder | None) -> str:
    return "" if run is None else f"To change that, start a new run from its weights: --init-from {run.path}."


@dataclasses.dataclass(frozen=True)
class _Start:
    """The options that decide what the other options' defaults are."""

    preset: str | None = None
    resume: Path | None = None
    run_dir: Path | None = None
    init_from: Path | None = None
    config: Path | None = None


def _parse_parts(
    recipe: Recipe[Any],
    preset: str | None,
    config: Any,
    kind: type[Options],
    prog: str,
    description: str,
    args: Sequence[str],
    examples: Examples = (),
    *,
    of_run: bool = False,
) -> tuple[Any, Options]:
    # The field types are only known here: the Config is the recipe's, the choices of --preset are its presets.
    # A run may have begun with a preset that there is no more.
    choices: Any = Literal[tuple(dict.fromkeys([*recipe.presets, preset]))]
    starts = ("preset", Annotated[choices, tyro.conf.arg(help="Settings that the options below start from.")], preset)
    command_type: type[Any] = dataclasses.make_dataclass(
        "Command",
        [
            *([] if preset is None else [starts]),
            ("this_recipe", Annotated[recipe.config, tyro.conf.OmitArgPrefixes], config),
            ("session", Annotated[kind, tyro.conf.OmitArgPrefixes], kind()),
        ],
        frozen=True,
    )
    parsed = parse_options(
        command_type,
        prog=prog,
        description=description,
        args=args,
        examples=examples,
        changed=f"what {'the run' if of_run else f'the preset {preset}'} sets",
    )
    return parsed.this_recipe, parsed.session


def _examples(recipe: Recipe[Any], prog: str) -> Examples:
    """What to type first."""
    first, *others = recipe.presets
    another = [(f"{prog} --preset {others[0]}", "train another preset")] if others else []
    return [(prog, f"train {first}"), *another, (f"{prog} --resume RUN", "continue a run")]


def _existing_run(recipe: Recipe[Any], start: _Start) -> RunFolder | None:
    if start.resume is not None:
        run = _open_run(recipe, start.resume)
    elif start.run_dir is not None and RunFolder.holds_run(start.run_dir):
        run = _open_run(recipe, start.run_dir)
    elif start.run_dir is not None and start.run_dir.exists() and not start.run_dir.is_dir():
        raise UserError(f"--run-dir must be a folder, but {start.run_dir} is a file.")
    else:
        return None
    if run.preset == CONVERTED:
        remedy = f"start a new run with --init-from {run.path}"
        raise UserError(f"{run.path} holds converted weights and no training to continue: {remedy}.")
    return run


def _open_run(recipe: Recipe[Any], path: Path) -> RunFolder:
    run = RunFolder.open(path)
    if not run.recipe.is_of(recipe.identity):
        raise UserError(f"{run.path} holds a run of {run.recipe}, not of {recipe.identity}.")
    return run


def _preset_of_run(recipe: Recipe[Any], asked: str | None, run: RunFolder | None) -> str:
    if run is not None:
        if asked not in (None, run.preset):
            raise UserError(f"--preset is {asked} here, but the run in {run.path} was started with {run.preset}.")
        return run.preset
    return recipe.choose_preset(asked)
