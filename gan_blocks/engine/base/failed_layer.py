"""Which layer of a network an error comes from, in one line.

Tested in ``tests/engine/base/test_failed_layer.py``.
"""

import inspect
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from gan_blocks.engine.base.checks import shortened
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.memory import out_of_memory
from gan_blocks.engine.base.parallel.processes import main_rank_only

__all__ = ["naming_failed_construction", "naming_failed_layer"]

OURS = {"torch", "gan_blocks"}
"""Packages in whose files nobody looks for the fault."""


@contextmanager
def naming_failed_layer(networks: Mapping[str, nn.Module]) -> Iterator[None]:
    """Turn an error in the forward pass of a network into a line: the layer, what it was given, and what is wrong.

    Args:
        networks: Those that run in the ``with`` block, by what to call them.

    Raises:
        UserError: If one of them fails, unless for want of memory.
    """
    try:
        yield
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if out_of_memory(error) is not None or (where := _failed_layer(error, networks)) is None:
            raise
        reason = shortened((str(error).splitlines() or [type(error).__name__])[0]).rstrip(".")
        raise main_rank_only(UserError(f"{where}: {reason}.")) from error


@contextmanager
def naming_failed_construction(network: str) -> Iterator[None]:
    """Turn a refusal of a part of torch or gan_blocks, of which a network is built, into a line.

    An error of the network's own code is left as it is: its author looks for the place.

    Args:
        network: What to call it.

    Raises:
        UserError: If a part refuses its arguments, unless for want of memory.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package not in OURS or out_of_memory(error) is not None:
            raise
        reason = shortened((str(error).splitlines() or [type(error).__name__])[0]).rstrip(".")
        raise main_rank_only(UserError(f"{network} cannot be built with these options: {reason}.")) from error


def _failed_layer(error: BaseException, networks: Mapping[str, nn.Module]) -> str | None:
    """The innermost module that was running, from the frames that the error has gone through; None if there is none."""
    places = {id(part): (title, name) for title, whole in networks.items() for name, part in whole.named_modules()}
    found: tuple[nn.Module, FrameType, int] | None = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and id(module) in places and frame.f_code.co_name in ("forward", "_call_impl"):
            found = module, frame, line
    if found is None:
        return None
    module, frame, line = found
    title, name = places[id(module)]
    kind = type_before_parametrizations(module)
    layer = f"{name} ({kind.__name__})" if name else kind.__name__
    own = frame.f_code.co_name == "forward" and kind.__module__.partition(".")[0] not in OURS
    at = f", line {line} of {frame.f_code.co_filename}" if own else ""
    return f"{title} fails in {layer}{at}, given {_given(frame)}"


def _given(frame: FrameType) -> str:
    """The shapes of the tensors among the arguments of a call, as far as it has not changed them."""
    names, varargs, _, values = inspect.getargvalues(frame)
    arguments = [values.get(name) for name in names[1:]] + list(values.get(varargs or "", ()))
    return ", ".join(str(tuple(each.shape)) for each in arguments if isinstance(each, Tensor)) or "no tensor"
