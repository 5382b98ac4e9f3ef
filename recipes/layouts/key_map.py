"""Which tensor of another layout is which of ours, in both directions, and what does not fit."""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gan_blocks import TruncatedBatchNormStatistics
from gan_blocks.engine import Recipe, UserError
from gan_blocks.engine.inspection import WithoutInitialization
from gan_blocks.engine.runs import mismatch_error

__all__ = [
    "KEEP",
    "Converted",
    "KeyMap",
    "NormalizedLayer",
    "PlainTensor",
    "Reorder",
    "SingularVectors",
    "check_fits",
    "expected_state",
    "rolled",
    "shown",
]

State = Mapping[str, Tensor]


class Converted(NamedTuple):
    """Networks from another layout, as a recipe builds them."""

    recipe: Recipe[Any]
    """The recipe whose networks they are."""
    config: Any
    """Its Config: the networks are those of the tensors, the rest are settings to train on with."""
    generator: dict[str, Tensor]
    """State dict of ``build_generator(config)``."""
    discriminator: dict[str, Tensor] | None
    """State dict of ``build_discriminator(config)``, when there was a discriminator."""
    statistics: TruncatedBatchNormStatistics | None
    """BatchNorm statistics for every truncation, when the layout has them."""
    notes: tuple[str, ...] = ()
    """What to tell the user."""


@dataclass(frozen=True)
class Reorder:
    """Another order of the first dimension."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


KEEP = Reorder(lambda tensor: tensor, lambda tensor: tensor)


def rolled(theirs_first: int) -> Reorder:
    """Our vector is theirs with its first entries moved to the end."""
    return Reorder(lambda t: torch.roll(t, -theirs_first, 0), lambda t: torch.roll(t, theirs_first, 0))


class SingularVectors(NamedTuple):
    """A weight with its first singular vectors, ``(out,)`` and ``(rest,)``."""

    weight: Tensor
    u: Tensor
    v: Tensor


class LayerNames(Protocol):
    """How a layout stores a spectrally normalized weight."""

    def read(self, state: State, layer: str) -> SingularVectors: ...
    def write(self, layer: str, tensors: SingularVectors) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class NormalizedLayer:
    """A spectrally normalized layer; its bias, if it has one, has the same name in both."""

    ours: str
    theirs: str
    rows: Reorder = KEEP
    columns: Reorder = KEEP


@dataclass(frozen=True)
class PlainTensor:
    """Any other tensor."""

    ours: str
    theirs: str
    change: Reorder = KEEP
    """Any change of shape or order, both ways."""


@dataclass(frozen=True)
class KeyMap:
    """All tensors of one network."""

    names: LayerNames
    layers: tuple[NormalizedLayer, ...]
    tensors: tuple[PlainTensor, ...]

    def to_ours(self, state: State) -> dict[str, Tensor]:
        """Our state dict; theirs must be whole (:func:`check_fits`). Tensors may share memory with theirs."""
        ours = {}
        for layer in self.layers:
            weight, u, v = self.names.read(state, layer.theirs)
            place = f"{layer.ours}.parametrizations.weight"
            ours[f"{place}.original"] = _columns(layer.rows.to_ours(weight), layer.columns.to_ours)
            ours[f"{place}.0.u"] = layer.rows.to_ours(u).unsqueeze(0)
            ours[f"{place}.0.v"] = layer.columns.to_ours(v).unsqueeze(0)
            if f"{layer.theirs}.bias" in state:
                ours[f"{layer.ours}.bias"] = layer.rows.to_ours(state[f"{layer.theirs}.bias"])
        for tensor in self.tensors:
            ours[tensor.ours] = tensor.change.to_ours(state[tensor.theirs])
        return ours

    def to_theirs(self, state: State) -> dict[str, Tensor]:
        """Their state dict; ours must be whole. Tensors may share memory with ours.

        Raises:
            UserError: If there are others, as those of a clamp, that the layout has no place for.
        """
        homeless = [name for name in state if not self._has_place_for(name)]
        if homeless:
            raise UserError(f"the layout cannot hold {len(homeless)} of the tensors, such as {homeless[0]}.")
        theirs = {}
        for layer in self.layers:
            place = f"{layer.ours}.parametrizations.weight"
            weight = _columns(layer.rows.to_theirs(state[f"{place}.original"]), layer.columns.to_theirs)
            u, v = state[f"{place}.0.u"][0], state[f"{place}.0.v"][0]
            vectors = SingularVectors(weight, layer.rows.to_theirs(u), layer.columns.to_theirs(v))
            theirs.update(self.names.write(layer.theirs, vectors))
            if f"{layer.ours}.bias" in state:
                theirs[f"{layer.theirs}.bias"] = layer.rows.to_theirs(state[f"{layer.ours}.bias"])
        for tensor in self.tensors:
            theirs[tensor.theirs] = tensor.change.to_theirs(state[tensor.ours])
        return theirs

    def _has_place_for(self, name: str) -> bool:
        layer, _, part = name.partition(".parametrizations.weight.")
        if part:
            return part in ("original", "0.u", "0.v") and any(layer == known.ours for known in self.layers)
        bias = name.removesuffix(".bias")
        return any(name == known.ours for known in self.tensors) or any(bias == known.ours for known in self.layers)


def expected_state(build: Callable[[Any], nn.Module], config: object) -> dict[str, Tensor]:
    """Zeros with the names and shapes of a network's state dict, in hardly any memory."""
    with WithoutInitialization(), torch.device("meta"):
        state = build(config).state_dict()
    return {name: torch.zeros(()).expand(value.shape) for name, value in state.items()}


def check_fits(source: str, given: State, expected: State) -> None:
    """Compare names and shapes; all tensors have to be of real numbers.

    Raises:
        UserError: If any differ; the first ten of each kind are named.
    """
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(given.keys() & expected.keys())
        if given[name].shape != expected[name].shape
    ]
    shapes += [
        f"{name} in {given[name].dtype} instead of {expected[name].dtype}"
        for name in sorted(given.keys() & expected.keys())
        if not given[name].is_floating_point()
    ]
    missing, unexpected = expected.keys() - given.keys(), given.keys() - expected.keys()
    if missing or unexpected or shapes:
        raise mismatch_error(source, missing, unexpected, shapes, fitting=expected.keys() & given.keys())


def shown(value: object) -> str:
    """A value of somebody's JSON for a message, shortened."""
    return value[:60] if isinstance(value, str) else reprlib.repr(value)


def _columns(weight: Tensor, reorder: Callable[[Tensor], Tensor]) -> Tensor:
    return reorder(weight.transpose(0, 1)).transpose(0, 1)
