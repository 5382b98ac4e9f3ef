"""One update of one network: micro-batches add up to the batch of all processes, the optimizer steps once.

Tested in ``tests/engine/training/test_updates.py``.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from operator import add
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn, optim

from gan_blocks import advance_power_iteration, frozen_power_iteration
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.processes import gather_objects, sum_gradients
from gan_blocks.engine.base.randomness import seeded_noise
from gan_blocks.engine.recipe.batches import FakeBatch, PairBatch
from gan_blocks.engine.recipe.state import TrainingState

__all__ = ["NOT_LOGGED", "WHOLE", "OfNetwork", "Penalties", "Penalty", "Totals", "descend", "known_weights"]

Part = TypeVar("Part", bound=FakeBatch | PairBatch)
Penalty: TypeAlias = Callable[[], Tensor]
Penalties: TypeAlias = Mapping[str, Penalty] | Iterable[Penalty]
OfNetwork: TypeAlias = Callable[[nn.Module], None]
Totals: TypeAlias = dict[str, Tensor]

WHOLE = ""
"""The name of a loss that comes without names for its terms."""
NOT_LOGGED = "\0"
"""The name of a term that is differentiated and not logged."""

_VERSIONS_AT_ADVANCE = WeakKeyDictionary[nn.Module, list[int]]()


def descend(
    state: TrainingState,
    network: nn.Module,
    optimizer: optim.Optimizer,
    seed: int,
    parts: Iterable[Part],
    loss: Callable[[Part], Any],
    *,
    penalties: Penalties = (),
    before_step: OfNetwork | None = None,
    after_step: OfNetwork | None = None,
    some_unchosen: bool = False,
) -> Totals:
    """Update a network once.

    Args:
        state: Both players.
        network: The one that learns.
        optimizer: Its optimizer.
        seed: Of what layers draw.
        parts: The micro-batches of this process.
        loss: The loss of one: a tensor, or terms by name, whose sum is descended.
        penalties: Terms of the weights alone, perhaps by name.
        before_step: Given the network when its gradients are complete.
        after_step: Given the network when its weights have moved.
        some_unchosen: Whether there may be a process of whose samples none was chosen, so that it names no terms.

    Returns:
        The means over the batch of all processes, detached, by name; that of a loss without names is :data:`WHOLE`,
        and has the penalties in it.
    """
    optimizer.zero_grad()
    # Of one type everywhere: a share may be in float64 where a process has chosen.
    dtype = torch.promote_types(next(network.parameters()).dtype, torch.float32)
    zero = torch.zeros((), device=state.device, dtype=dtype)
    totals: Totals = {}
    with known_weights(state):
        for part in parts:
            with state.autocast(), seeded_noise(seed, *part.noise_key, device=state.device):
                terms = _named(loss(part), state.device)
                value = part.share * reduce(add, terms.values())
            value.backward()
            for name, term in terms.items():
                if name != NOT_LOGGED:
                    totals[name] = totals.get(name, zero) + (part.share * term).detach().reshape(()).to(dtype)
        if some_unchosen:
            names = max(gather_objects(list(totals)), key=len)
            totals = {name: totals.get(name, zero.clone()) for name in names}
        sum_gradients(network, *totals.values())
        for name, penalty in _named_penalties(penalties):
            value = penalty()
            if value.requires_grad:  # a coefficient of 0 leaves a constant
                value.backward()
                name = WHOLE if WHOLE in totals else name
                totals[name] = totals.get(name, zero) + value.detach().reshape(()).to(zero)
    if before_step is not None:
        before_step(network)
    optimizer.step()
    if after_step is not None:
        after_step(network)
    advance_power_iteration(network)
    _VERSIONS_AT_ADVANCE[network] = _versions(network)
    return totals


def _named(value: Any, device: torch.device) -> Totals:
    """The terms of a loss by name.

    Raises:
        UserError: If it is none.
    """
    if not isinstance(value, Mapping):
        return {WHOLE: _checked(value, "the loss of a micro-batch must be")}
    if not value or not all(isinstance(name, str) and name for name in value):
        raise UserError(f"the loss of a micro-batch must name its terms, but got {list(value)!r:.200}.")
    numbers = {name: torch.tensor(term, device=device) for name, term in value.items() if isinstance(term, int | float)}
    return {name: _checked(term, f"the term {name} of a loss must be") for name, term in {**value, **numbers}.items()}


def _checked(value: Any, rule: str) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"{rule} a tensor of one element, but got {got}.")
    return value


def _named_penalties(penalties: Penalties) -> Iterable[tuple[str, Penalty]]:
    return penalties.items() if isinstance(penalties, Mapping) else [("penalty", penalty) for penalty in penalties]


@contextlib.contextmanager
def known_weights(state: TrainingState) -> Iterator[None]:
    """After an update here no spectral norm has to look whether its weight is still the same, unless somebody wrote."""
    with contextlib.ExitStack() as held:
        for network in (state.discriminator, state.generator):
            if _VERSIONS_AT_ADVANCE.get(network) == _versions(network):
                held.enter_context(frozen_power_iteration(network))
        yield


def _versions(network: nn.Module) -> list[int]:
    return [parameter._version for parameter in network.parameters()]
