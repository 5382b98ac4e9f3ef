"""Advancing, or holding, all singular vectors of a model together.

Tested in ``tests/spectral/test_advancing.py``.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from gan_blocks._checks import bad_value, check_module
from gan_blocks._precision import full_precision, wide_dtype
from gan_blocks.spectral.fingerprints import can_branch, fingerprint, reference_of
from gan_blocks.spectral.padding import PaddedStack, share_stacks
from gan_blocks.spectral.parametrized import chain_input, chains_in, modules_in
from gan_blocks.spectral.power_iteration import in_torch_order, matrix_axes, quick_steps
from gan_blocks.spectral.registering import trackers_of
from gan_blocks.spectral.tracking import SingularVectorTracker, advance_together

__all__ = ["PaddedGroup", "advance_power_iteration", "frozen_power_iteration", "group_together"]

# Stacking weights saves calls and costs a copy of each. Measured on one CPU core, float32, per weight among 16 of a
# shape: 4,096 elements 5 us instead of 30, 36,864 elements 40 us either way, 147,456 elements 500 us instead of 100.
_LARGEST_STACKED_WEIGHT = 32_768

Pair = tuple[SingularVectorTracker, Tensor]


def advance_power_iteration(model: nn.Module, *, n_power_iterations: int | None = None) -> None:
    """Advance the power iteration of every spectral norm (and clamp) of a model, once.

    Call it after the optimizer step. The reads that follow, whatever their number, take u and v as they are:
    accumulation, two critic calls, recomputed forward passes and evaluation all see one weight. A layer also notices an
    update by itself, at a price for each read: this call costs less, since weights of equal shape with at most 32,768
    elements (a limit measured on a CPU) advance in one product, on a CPU padded with zeros also those of different
    shapes, and whoever makes it after every update can read inside
    :func:`frozen_power_iteration`, where no layer looks. The result is the same.

    It acts in evaluation mode as well, since it is called explicitly, but not inside :func:`frozen_power_iteration`.
    Weights in shards are gathered: each process has to call it.

    Args:
        model: Any module; without spectral norms nothing happens.
        n_power_iterations: Steps to take, at least 1; None takes each layer's own number.

    Raises:
        ValueError: If ``n_power_iterations`` is less than 1.

    References:
        Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", algorithm 1.

    Example:
        >>> from gan_blocks import advance_power_iteration, spectral_norm
        >>> critic = spectral_norm(torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.Adam(critic.parameters())
        >>> critic(torch.ones(1, 8)).sum().backward()
        >>> optimizer.step()
        >>> advance_power_iteration(critic)
    """
    check_module("advance_power_iteration", "model", model)
    if n_power_iterations is not None and n_power_iterations < 1:
        raise bad_value("advance_power_iteration", "n_power_iterations", "at least 1", n_power_iterations)
    queues = [(chain, trackers_of(chain)) for chain in chains_in(model)]
    plans = _plans_of(model)
    # The second tracker of a weight is given what the first one makes of it: all the first ones go first.
    for turn in range(max((len(queue) for _, queue in queues), default=0)):
        entries = [(chain, *queue[turn]) for chain, queue in queues if turn < len(queue)]
        with _LOCK:
            _advance_in_groups(entries, n_power_iterations, plans[turn])


@contextmanager
def frozen_power_iteration(model: nn.Module) -> Iterator[None]:
    """Hold the singular vectors of a model still: inside, neither a read nor an explicit call advances them.

    A read costs no more than the division then. Contexts nest. An update of the weight inside is noticed by the first
    read in training mode after the last one.

    Args:
        model: Any module.

    Yields:
        Nothing.

    Raises:
        TypeError: If ``model`` is no module.

    Example:
        >>> from gan_blocks import advance_power_iteration, frozen_power_iteration, spectral_norm
        >>> layer = spectral_norm(torch.nn.Linear(4, 4))
        >>> u = layer.parametrizations.weight[0].u.clone()
        >>> with frozen_power_iteration(layer):
        ...     advance_power_iteration(layer)
        >>> torch.equal(layer.parametrizations.weight[0].u, u)
        True
    """
    check_module("frozen_power_iteration", "model", model)
    trackers = [module for module in modules_in(model) if isinstance(module, SingularVectorTracker)]
    for tracker in trackers:
        vars(tracker)["frozen"] += 1  # a tenth of what the attribute of a module costs
    try:
        yield
    finally:
        for tracker in trackers:
            vars(tracker)["frozen"] -= 1


class _Group(NamedTuple):
    """Weights that advance in one product."""

    positions: list[int]
    steps: int
    padded: "PaddedGroup | None"


class _Plan:
    """Which weights of a model advance together, for as long as all stay as they are."""

    def __init__(self) -> None:
        self.layout: object = None
        self.groups: list[_Group] = []

    def groups_of(self, pairs: Sequence[Pair], steps: Sequence[int]) -> list[_Group]:
        """The groups; they are looked for where the last call was about others."""
        layout = [
            (count, tracker.fresh, *_traits(tracker, weight))
            for count, (tracker, weight) in zip(steps, pairs, strict=True)
        ]
        if layout != self.layout:
            self.groups = list(_grouped(pairs, steps))
            self.layout = layout
        return self.groups


_PLANS = WeakKeyDictionary[nn.Module, defaultdict[int, _Plan]]()
_LOCK = threading.RLock()  # a plan has memory of its own


def _plans_of(model: nn.Module) -> defaultdict[int, _Plan]:
    """The plans of a model by turn, which know nothing of its modules."""
    if torch.compiler.is_compiling():
        return defaultdict(_Plan)
    with _LOCK:
        return _PLANS.setdefault(model, defaultdict(_Plan))


def _traits(tracker: SingularVectorTracker, weight: Tensor) -> tuple[object, ...]:
    """What decides with which others a weight advances."""
    u, v = tracker._buffers["u"], tracker._buffers["v"]
    assert u is not None
    assert v is not None
    return (
        type(weight),
        weight.shape,
        weight.stride(),
        weight.dtype,
        weight.device,
        tracker.dim,
        tracker.warmup_iterations,
        u.shape,
        v.shape,
        u.dtype,
    )


def _grouped(pairs: Sequence[Pair], steps: Sequence[int]) -> Iterator[_Group]:
    alike = defaultdict[tuple[int, bool, torch.dtype], list[int]](list)
    for position, (count, (tracker, weight)) in enumerate(zip(steps, pairs, strict=True)):
        alike[count, tracker.fresh, weight.dtype].append(position)
    for (count, fresh, _), members in alike.items():
        for group, padded in group_together([pairs[member] for member in members], pad=not fresh):
            positions = [members[place] for place in group]
            yield _Group(positions, count, PaddedGroup([pairs[each] for each in positions]) if padded else None)


@torch.no_grad()
def _advance_in_groups(
    entries: Sequence[tuple[ParametrizationList, int, SingularVectorTracker]],
    n_power_iterations: int | None,
    plan: _Plan,
) -> None:
    moving = [entry for entry in entries if not entry[2].frozen]
    pairs = [(tracker, chain_input(chain, index)) for chain, index, tracker in moving]
    counts = [tracker.steps_due(n_power_iterations) for tracker, _ in pairs]
    for positions, steps, padded in plan.groups_of(pairs, counts):
        members = [pairs[position] for position in positions]
        if padded is None:
            advance_together(members, steps)
        elif not padded.advance(members, steps):
            for part, _ in group_together(members, pad=False):
                advance_together([members[position] for position in part], steps)


class PaddedGroup:
    """Memory in which weights of different sizes, and what follows their vectors, are padded to one size.

    Args:
        pairs: Weights of one dtype, each with what follows its singular vectors.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        trackers, weights = zip(*pairs, strict=True)
        self.matrices = PaddedStack([weight.shape for weight in weights], weights[0])
        self.rows = {
            name: PaddedStack([tracker._buffers[name].shape for tracker in trackers], weights[0])
            for name in ("u", "v", "reference")
        }

    def advance(self, pairs: Sequence[Pair], steps: int) -> bool:
        """Advance them in one product; False if they need a look each: nothing has happened then."""
        trackers, weights = zip(*pairs, strict=True)
        buffers = {name: [tracker._buffers[name] for tracker in trackers] for name in self.rows}
        with full_precision(weights[0]):
            matrices = self.matrices.filled(weights)
            vectors = quick_steps(matrices, self.rows["u"].filled(buffers["u"]), steps)
            if vectors is None:
                return False
            references = reference_of(matrices, fingerprint(matrices, matrices[0], 0))
        for (name, rows), values in zip(self.rows.items(), (*vectors, references), strict=True):
            rows.stack.copy_(values)
            torch._foreach_copy_(buffers[name], rows.parts)
        for tracker in trackers:
            vars(tracker)["advances"] += 1  # a tenth of what the attribute of a module costs
            vars(tracker)["unsettled"] = False
        return True


def group_together(pairs: Sequence[Pair], *, pad: bool = True) -> list[tuple[list[int], bool]]:
    """Divide weights into those to compute in one product each: their positions, and whether for that they are padded.

    Args:
        pairs: Weights of one dtype, each with what follows its singular vectors.
        pad: Whether different sizes may share a product.
    """
    small = [position for position, (tracker, weight) in enumerate(pairs) if pad and _can_pad(tracker, weight)]
    trackers = [pairs[position][0] for position in small]
    stacks = share_stacks(tuple((tracker.u.shape[1], tracker.v.shape[1]) for tracker in trackers))
    alike = defaultdict[object, list[int]](list)
    for position in sorted(set(range(len(pairs))).difference(small)):
        alike[_key(*pairs[position])].append(position)
    padded = [([small[member] for member in stack], True) for stack in stacks]
    return padded + [(positions, False) for positions in alike.values()]


def _can_pad(tracker: SingularVectorTracker, weight: Tensor) -> bool:
    """Whether a weight may share a product with others, whatever their sizes."""
    return (
        weight.numel() <= _LARGEST_STACKED_WEIGHT
        and tracker.dim == 0
        and len(tracker.u) == 1
        and weight.dtype == tracker.u.dtype == wide_dtype(weight)
        and can_branch(weight)
    )


def _key(tracker: SingularVectorTracker, weight: Tensor) -> object:
    """What weights have in common that are stacked as they are."""
    if weight.numel() > _LARGEST_STACKED_WEIGHT:
        return id(tracker)
    axes = matrix_axes(weight, tracker.dim)
    order = None if in_torch_order(axes) else (axes, weight.shape)
    return tracker.u.shape, tracker.v.shape, tracker.warmup_iterations, order, weight.dtype, weight.device
