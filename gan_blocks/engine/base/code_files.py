"""Code that the user names on a command line: loading a Python file, and saying what is wrong with it and where.

Tested in ``tests/engine/base/test_code_files.py``.
"""

import importlib
import importlib.util
import sys
import traceback
from os.path import isfile  # pathlib's raises for names that are too long
from pathlib import Path
from types import ModuleType

from gan_blocks.engine.base.checks import shortened
from gan_blocks.engine.base.errors import UserError

__all__ = ["failing_line", "import_error", "load_code_file"]

ENGINE = Path(__file__).parents[1]


def load_code_file(path: Path, *, what: str) -> ModuleType:
    """The module in a file, which may import what lies beside it, as after ``python FILE``.

    Args:
        path: Of the file. One that is loaded already is not loaded again.
        what: What to call it in an error, such as ``recipe file``.

    Raises:
        UserError: If it is not there, is no Python file, has the name of another module, or cannot be imported.
    """
    if not isfile(path):  # noqa: PTH113
        raise UserError(f"there is no {what} {shortened(str(path))}.")
    path = path.resolve()
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None:
        if Path(getattr(loaded, "__file__", None) or "").resolve() == path:
            return loaded
        raise UserError(f"{path} has the name of a module that is in use, {name}; rename the file.")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file; its name must end in .py.")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickled functions look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise import_error(str(path), error) from error
    return module


def import_error(subject: str, error: BaseException) -> UserError:
    """Say what went wrong in the user's own code, and where; it may be in a module that this code imports."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    text = message if isinstance(error, UserError) else f"{type(error).__name__}: {message}"
    line = failing_line(error)
    return UserError(f"{subject} cannot be imported: {text.rstrip('.')}{f' ({line})' if line else ''}.")


def failing_line(error: BaseException) -> str | None:
    """The innermost line that is not of the engine or of the import system, if there is one."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno} of {error.filename}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    ours = (ENGINE, Path(importlib.__file__).parent)
    lines = [
        f"line {frame.lineno} of {frame.filename}"
        for frame in frames
        if not any(Path(frame.filename).is_relative_to(path) for path in ours)
    ]
    return lines[-1] if lines else None
