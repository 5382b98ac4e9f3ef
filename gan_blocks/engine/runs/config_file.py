"""The ``config.json`` of a run: written once, read, and compared with the Config of a command line.

Tested in ``tests/engine/runs/test_folder.py``.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.base.json_values import is_object, is_text, read_object
from gan_blocks.engine.runs.identity import RecipeIdentity

__all__ = ["CONFIG_NAME", "compare_configs", "option_values", "read_config", "write_config"]

CONFIG_NAME = "config.json"


def write_config(path: Path, recipe: RecipeIdentity, preset: str, config: Mapping[str, Any]) -> None:
    """Write the ``config.json`` of a run's folder."""
    description = json.dumps({**recipe.as_dict(), "preset": preset, "config": config}, indent=2)
    replace_durably(path / CONFIG_NAME, description.encode() + b"\n")


def read_config(path: Path) -> dict[str, Any]:
    """What a ``config.json`` says: ``recipe``, ``preset`` and ``config``.

    Raises:
        UserError: If it cannot be read or is damaged.
    """
    return read_object(path, {"recipe": is_text, "preset": is_text, "config": is_object})


def option_values(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a Config, and in place of one that holds a dataclass that one's own: each is an option."""
    for name, value in config.items():
        yield from option_values(value) if isinstance(value, dict) else [(name, value)]


def compare_configs(
    saved: Mapping[str, Any], given: Mapping[str, Any], allowed: Collection[str] = (), remedy: str = ""
) -> None:
    """Check that a run is continued with the Config it was started with.

    Args:
        saved: The run's Config as JSON values.
        given: The Config asked for now.
        allowed: Fields that may differ.
        remedy: Last sentence of the error.

    Raises:
        UserError: If other fields differ; each is named as its option, with both values.
    """
    # Through JSON and back, so that a tuple equals the list it was saved as.
    then, now = (dict(option_values(json.loads(json.dumps(config)))) for config in (saved, given))
    differences = [
        f"--{name.replace('_', '-')} is {_show(now[name]) if name in now else 'not an option'} here, "
        f"but the run was started with{f' {_show(then[name])}' if name in then else 'out it'}"
        for name in dict.fromkeys([*now, *then])
        if name not in allowed and (name not in then or name not in now or then[name] != now[name])
    ]
    if differences:
        raise UserError(f"{'; '.join(differences)}. {remedy}".rstrip())


def _show(value: Any) -> str:
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) or "empty"
