"""Networks that are only looked at: eval mode for a while, and the mode of every module again after it.

Tested in ``tests/engine/base/test_eval_mode.py``.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["eval_mode"]


@contextmanager
def eval_mode(*networks: nn.Module) -> Iterator[None]:
    """Put networks into eval mode for the ``with`` block; nothing advances, such as running statistics.

    After it, a module that was in eval mode before is so again, such as a frozen backbone in a network that trains.
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
