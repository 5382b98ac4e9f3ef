"""How a parametrized weight tells that it has been updated.

Tested in ``tests/spectral/test_weight_updates.py``.
"""

import functools
from itertools import islice
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

__all__ = [
    "WeightState",
    "chain_input",
    "chains_of",
    "count_fused_updates",
    "count_updates",
    "sources_of",
    "weight_state",
]

WeightState = tuple[int, ...]

_FUSED_UPDATES = "_gan_blocks_fused_updates"


def chains_of(module: nn.Module) -> dict[str, ParametrizationList]:
    """Return the parametrizations of each parametrized tensor of one layer."""
    if not is_parametrized(module):
        return {}
    chains = module.get_submodule("parametrizations").named_children()
    return {name: chain for name, chain in chains if isinstance(chain, ParametrizationList)}


def chain_input(chain: ParametrizationList, index: int) -> Tensor:
    """Return the tensor that the parametrization at ``index`` is given: the output of those before it."""
    weight, *others = _originals(chain)
    for position, module in enumerate(islice(chain, index)):
        weight = module(weight, *others) if position == 0 else module(weight)
    return weight


def weight_state(chain: ParametrizationList, index: int) -> WeightState:
    """Return numbers that change with every in-place update of what the parametrization at ``index`` is made from.

    Changes made through ``.data`` escape torch's version counters, and so this function.
    """
    return tuple(count_updates(source) for source in sources_of(chain, index))


def sources_of(chain: ParametrizationList, index: int) -> list[Tensor]:
    """Return the tensors that an optimizer moves and the parametrization at ``index`` is made from."""
    sources = _originals(chain)
    for module in islice(chain, index):
        sources += module.parameters()
    return sources


def count_updates(source: Tensor) -> int:
    """Return how often a tensor has been changed in place, from an arbitrary start."""
    # A tensor made under inference_mode has no version counter and cannot be trained either.
    version = 0 if source.is_inference() else source._version
    updates: int = version + getattr(source, _FUSED_UPDATES, 0)
    return updates


@functools.cache
def count_fused_updates() -> None:
    """Let every fused optimizer of this process count its updates on the parameters themselves, from now on.

    The fused kernels (``Adam(fused=True)`` and others, torch 2.13) do not raise the version counter of what they
    change. Raising it for them could fail other people's backward passes; a count of our own disturbs nobody.
    """
    register_optimizer_step_post_hook(_count_fused_step)


def _count_fused_step(optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    for group in optimizer.param_groups:
        if group.get("fused"):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    setattr(parameter, _FUSED_UPDATES, getattr(parameter, _FUSED_UPDATES, 0) + 1)


def _originals(chain: ParametrizationList) -> list[Tensor]:
    if chain.is_tensor:
        return [chain.original]
    return [getattr(chain, f"original{index}") for index in range(chain.ntensors)]
