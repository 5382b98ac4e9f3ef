"""What a training step returns, checked on its way to the log.

Tested in ``tests/engine/training/test_loop.py``.
"""

import torch
from torch import Tensor

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel.processes import main_rank_only

__all__ = ["loggable"]


def loggable(returned: object) -> dict[str, Tensor]:
    """What a training step returned, if that can be logged; plain numbers become tensors.

    Raises:
        UserError: If it cannot.
    """
    rule = "train_step must return what to log: a dict of numbers or tensors of one element"
    if not isinstance(returned, dict):
        raise main_rank_only(UserError(f"{rule}, but got {type(returned).__name__}."))
    for name, value in returned.items():
        if name in ("step", "event"):
            raise main_rank_only(UserError(f"train_step must not name what it logs {name}, which the log itself has."))
        if not isinstance(value, int | float) and not (isinstance(value, Tensor) and value.numel() == 1):
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise main_rank_only(UserError(f"{rule}, but {name} is of {got}."))
    return {name: torch.as_tensor(value) for name, value in returned.items()}
