"""Training with compiled networks.

Tested in ``tests/engine/training/test_compiling.py``.
"""

from collections.abc import Callable
from typing import Any

import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel.processes import say
from gan_blocks.engine.recipe.options import RunOptions
from gan_blocks.engine.recipe.state import TrainingState

__all__ = ["check_compiler", "compile_networks", "needs_second_derivative"]

# Layers draw the random numbers that they draw without it.
_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"fallback_random": True}


def check_compiler(options: RunOptions, device: torch.device) -> None:
    """Compile next to nothing, if compilation is asked for: there may be no compiler, or one that does not work.

    Raises:
        UserError: If that fails.
    """
    if not options.compile:
        return
    try:
        torch.compile(_next_to_nothing, options=_OPTIONS)(torch.ones(2, device=device))
    except Exception as error:  # of a dozen kinds, from a header that is missing to a linker that crashes
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0].rstrip(".:") if lines else type(error).__name__
        needed = "a working C++ compiler, such as g++" if device.type == "cpu" else "Triton and a working C compiler"
        raise UserError(f"--compile needs {needed}: {reason:.200}. Install it, or leave --compile out.") from error


def _next_to_nothing(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def compile_networks(state: TrainingState) -> None:
    """Let G and D run compiled from their next call on. Their state dicts and the average stay what they are."""
    say("--compile: G and D are compiled in the first steps of this session, which takes minutes on a CPU.")
    for network in (state.generator, state.discriminator):
        network.compile(options=_OPTIONS)


def needs_second_derivative(error: Exception) -> bool:
    """Whether a step failed because compiled networks have first derivatives alone."""
    return "double backward" in str(error)
