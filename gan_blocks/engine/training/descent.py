"""One update of one network: micro-batches add up to the batch of all processes, the optimizer steps once.

Tested in ``tests/engine/training/test_updates.py``.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn, optim

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel.processes import gather_objects, sum_gradients
from gan_blocks.engine.base.randomness import seeded_noise
from gan_blocks.engine.recipe.batches import FakeBatch, PairBatch
from gan_blocks.engine.recipe.state import TrainingState
from gan_blocks.engine.training.spectral_norms import advance_norms, cached_weights, known_weights

__all__ = [
    "NOT_LOGGED",
    "WHOLE",
    "OfNetwork",
    "Penalties",
    "Penalty",
    "Totals",
    "check_one_form",
    "descend",
    "listed_penalties",
]

Part = TypeVar("Part", bound=FakeBatch | PairBatch)
Penalty: TypeAlias = Callable[[], Tensor]
Penalties: TypeAlias = Mapping[str, Penalty] | Iterable[Penalty]
OfNetwork: TypeAlias = Callable[[nn.Module], None]
Totals: TypeAlias = dict[str, Tensor]

WHOLE = ""
"""The name of a loss that comes without names for its terms."""
NOT_LOGGED = "\0"
"""The name of a term that is differentiated and not logged."""


def descend(
    state: TrainingState,
    network: nn.Module,
    optimizer: optim.Optimizer,
    seed: int,
    parts: Iterable[Part],
    loss: Callable[[Part], Any],
    *,
    penalties: Sequence[tuple[str, Penalty]] = (),
    before_step: OfNetwork | None = None,
    after_step: OfNetwork | None = None,
) -> Totals:
    """Update a network once.

    Args:
        state: Both players.
        network: The one that learns.
        optimizer: Its optimizer.
        seed: Of what layers draw.
        parts: The micro-batches of this process.
        loss: The loss of one: a tensor, or terms by name, whose sum is descended.
        penalties: Terms of the weights alone, with their names (:func:`listed_penalties`).
        before_step: Given the network when its gradients are complete.
        after_step: Given the network when its weights have moved.

    Returns:
        The means over the batch of all processes, detached, by name; that of a loss without names is :data:`WHOLE`,
        and has the penalties in it.

    Raises:
        UserError: If a loss or a penalty is none, or has names in one micro-batch or process and none in another.
    """
    _zero_gradients(network, optimizer)
    # Of one type everywhere: a share may be in float64 where a process has chosen.
    dtype = torch.promote_types(next(network.parameters()).dtype, torch.float32)
    zero = torch.zeros((), device=state.device, dtype=dtype)
    totals: Totals = {}
    with known_weights(state):
        with cached_weights(state):
            for part in parts:
                with state.autocast(), seeded_noise(seed, *part.noise_key, device=state.device):
                    terms = _named(loss(part), state.device)
                    value = part.share * reduce(add, terms.values())
                if not value.requires_grad:
                    raise UserError(
                        "the loss of a micro-batch must depend on the weights that learn, but it is a constant."
                    )
                value.backward()
                for name, term in terms.items():
                    if name != NOT_LOGGED:
                        totals[name] = totals.get(name, zero) + (part.share * term).detach().reshape(()).to(dtype)
        # A process none of whose samples was chosen names no terms; one may have a term that others lack.
        names = dict.fromkeys(name for each in gather_objects(list(totals)) for name in each)
        check_one_form(names)
        totals = {name: totals.get(name, zero.clone()) for name in names}
        sum_gradients(network, *totals.values())
        for name, penalty in penalties:
            value = _number_or_checked(penalty(), f"{name} must return", state.device)
            if value.requires_grad:  # a coefficient of 0 leaves a constant
                value.backward()
                name = WHOLE if WHOLE in totals else name
                totals[name] = totals.get(name, zero) + value.detach().reshape(()).to(zero)
    if before_step is not None:
        before_step(network)
    optimizer.step()
    if after_step is not None:
        after_step(network)
    _zero_gradients(network, optimizer)  # their memory is the other player's now
    advance_norms(network)
    return totals


_LEFT_OUT = WeakKeyDictionary[nn.Module, list[nn.Parameter]]()


def _zero_gradients(network: nn.Module, optimizer: optim.Optimizer) -> None:
    """Also of weights that the optimizer leaves out, which would add up; to find these takes as long as the rest."""
    optimizer.zero_grad()
    if network not in _LEFT_OUT:
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        _LEFT_OUT[network] = [parameter for parameter in network.parameters() if id(parameter) not in known]
    for parameter in _LEFT_OUT[network]:
        parameter.grad = None


def _named(value: Any, device: torch.device) -> Totals:
    """The terms of a loss by name.

    Raises:
        UserError: If it is none.
    """
    if not isinstance(value, Mapping):
        return {WHOLE: _checked(value, "the loss of a micro-batch must be")}
    if not value or not all(isinstance(name, str) and name for name in value):
        raise UserError(f"the loss of a micro-batch must name its terms, but got {list(value)!r:.200}.")
    return {
        name: _number_or_checked(term, f"the term {name} of a loss must be", device) for name, term in value.items()
    }


def check_one_form(names: Collection[str]) -> None:
    """Check that a loss named its terms always or never.

    Raises:
        UserError: If it did so at times.
    """
    if WHOLE in names and len(names) > 1:
        raise UserError("a loss must name its terms in every micro-batch and update, or in none.")


def _number_or_checked(value: Any, rule: str, device: torch.device) -> Tensor:
    if isinstance(value, int | float):
        return torch.tensor(float(value), device=device)
    return _checked(value, rule)


def _checked(value: Any, rule: str) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
        got = type(value).__name__
        if isinstance(value, Tensor):
            got = "a complex one" if value.is_complex() else f"one of shape {tuple(value.shape)}"
        raise UserError(f"{rule} a tensor of one element, but got {got}.")
    return value


def listed_penalties(penalties: Penalties) -> list[tuple[str, Penalty]]:
    """Penalties with their names, which are all ``penalty`` where none are given.

    Raises:
        UserError: If they are none.
    """
    rule = "penalties must be functions without arguments, in a list or by name"
    if not isinstance(penalties, Iterable):
        raise UserError(f"{rule}, but got {type(penalties).__name__}.")
    named = list(penalties.items()) if isinstance(penalties, Mapping) else [("penalty", each) for each in penalties]
    for name, penalty in named:
        if not isinstance(name, str) or not name or not callable(penalty):
            raise UserError(f"{rule}, but got {name!r:.60}: {type(penalty).__name__}.")
    return named
