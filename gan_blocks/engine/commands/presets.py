"""List recipes and their presets: data, resolution, and the parameters of both networks.

Tested in ``tests/engine/commands/test_presets.py``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tyro

from gan_blocks.engine.base.terminal.command_line import parse_options, run_command
from gan_blocks.engine.base.terminal.console import Progress
from gan_blocks.engine.inspection.dry_run import build_on_meta
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.registry import find_recipe, registered_recipes

__all__ = ["Options", "PresetRow", "main", "preset_rows"]


@dataclass(frozen=True)
class Options:
    """Which recipes."""

    recipes: tyro.conf.Positional[tuple[str, ...]] = ()
    """Registered names, files or modules; none: every registered recipe."""


class PresetRow(NamedTuple):
    """What there is to know of a preset before it is trained."""

    recipe: str
    preset: str
    data: str
    resolution: int
    parameters_g: int
    parameters_d: int

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        return (*self[:3], str(self.resolution), f"{self.parameters_g:,}", f"{self.parameters_d:,}")


HEADINGS = ("Recipe", "Preset", "Data", "Resolution", "Parameters of G", "Parameters of D")


def preset_rows(recipe: Recipe[Any]) -> Iterator[PresetRow]:
    """The presets of one recipe; its networks are built without memory."""
    for name, preset in recipe.presets.items():
        config = preset()
        counts = [sum(p.numel() for p in network.parameters()) for network in build_on_meta(recipe, config)]
        yield PresetRow(recipe.name, name, config.data, config.resolution, *counts)


def main(argv: Sequence[str] | None = None, *, prog: str = "gan-blocks presets") -> int:
    """Print the table; see ``gan-blocks presets --help``."""

    def command() -> int:
        examples = [(prog, "all"), (f"{prog} biggan my_gan.py", "those of two recipes")]
        options = parse_options(Options, prog=prog, description=__doc__ or "", args=argv, examples=examples)
        recipes = [find_recipe(name) for name in options.recipes or registered_recipes()]
        total = sum(len(recipe.presets) for recipe in recipes)
        rows = (row for recipe in recipes for row in preset_rows(recipe))
        print(_table(list(Progress(rows, total=total, unit="preset", delay=2, leave=False))))
        return 0

    return run_command("presets", command)


def _table(rows: Sequence[PresetRow]) -> str:
    cells = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        texts = [text.ljust(width) for text, width in zip(row[:3], widths[:3], strict=True)]
        texts += [text.rjust(width) for text, width in zip(row[3:], widths[3:], strict=True)]
        lines.append("  ".join(texts).rstrip())
    return "\n".join(lines)
