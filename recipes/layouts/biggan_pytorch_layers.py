"""What the layout of BigGAN-PyTorch names alike in all its architectures."""

import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_blocks.engine import Recipe
from recipes.layouts.key_map import KeyMap, NormalizedLayer, PlainTensor, SingularVectors, rolled

__all__ = [
    "DISCRIMINATOR",
    "GENERATOR",
    "Architecture",
    "Names",
    "attention_layers",
    "attention_places",
    "canonical",
    "channel_unit",
    "class_tables",
    "conditional_norm",
    "last_norm",
    "rows_of",
]

GENERATOR, DISCRIMINATOR = (f"the {network} (layout biggan-pytorch)" for network in ("generator", "discriminator"))


class Architecture(Protocol):
    """A module that knows the networks of one recipe in this layout."""

    RECIPE: Recipe[Any]
    STANDARD: Any
    """The Config of the paper's network, to compare tensors of no network with."""
    MODEL: str
    """That code's name of it."""

    def read_config(self, g: Mapping[str, Tensor], d: Mapping[str, Tensor] | None, channels: int | None) -> Any:
        """The Config of networks in this layout; ``channels`` where the tensors leave their unit open."""

    def own_options(self, config: Any) -> dict[str, object]:
        """That code's options for how z and the class reach the blocks of a Config, and what else is its own."""

    def attention_of(self, config: Any) -> tuple[list[int], list[int]]:
        """Heights of G's non-local blocks, and the numbers of D's blocks, in that code's count, that one follows."""

    def generator_map(self, config: Any) -> KeyMap:
        """Which of G's tensors is which."""

    def discriminator_map(self, config: Any) -> KeyMap:
        """Which of D's tensors is which."""


class Names:
    """One left singular vector beside the weight, ``(1, out)``."""

    def read(self, state: Mapping[str, Tensor], layer: str) -> SingularVectors:
        """Take the step of power iteration that its evaluation takes."""
        weight, u0 = state[f"{layer}.weight"], state[f"{layer}.u0"][0]
        matrix = weight.flatten(1).double()
        v = F.normalize(matrix.T @ u0.double(), dim=0)
        u = F.normalize(matrix @ v, dim=0)
        return SingularVectors(weight, u.to(u0.dtype), v.to(u0.dtype))

    def write(self, layer: str, tensors: SingularVectors) -> dict[str, Tensor]:
        """Keep u, and sigma for the record."""
        weight, u, v = tensors
        sigma = torch.dot(u, weight.flatten(1) @ v)
        return {f"{layer}.weight": weight, f"{layer}.u0": u.unsqueeze(0), f"{layer}.sv0": sigma.reshape(1)}


def canonical(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network under the names that one singular vector and plain BatchNorm have there.

    Further singular vectors are left out: nothing depends on them. Nor does anything on ``sv0``, which some files lack.
    Norms of its ``cross_replica`` and ``mybn`` keep their statistics one level further down; standing statistics of the
    latter are sums, beside the number of batches.
    """
    plain = {}
    for name, value in state.items():
        if re.search(r"\.(u|sv)[1-9]\d*$|\.bn\.(accumulation_counter|num_batches_tracked)$", name):
            continue
        norm, inner, kind = re.fullmatch(r"(.*?)(\.bn\.(?:stored|running)_(mean|var))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
        counter = state.get(f"{norm}.bn.accumulation_counter") if inner else None
        if counter is not None and counter.numel() == 1 and counter.item() > 0:
            value = value / counter
        plain[f"{norm}.stored_{kind}" if inner else name] = value
    for name in [name for name in plain if name.endswith(".u0")]:
        plain.setdefault(f"{name.removesuffix('u0')}sv0", torch.zeros(1))
    return plain


def conditional_norm(ours: str, theirs: str, embedding_dim: int) -> tuple[list[NormalizedLayer], list[PlainTensor]]:
    """A conditional BatchNorm: two projections of [class vector, z], and the statistics."""
    order = rolled(embedding_dim)
    layers = [NormalizedLayer(f"{ours}.{name}", f"{theirs}.{name}", columns=order) for name in ("gain", "bias")]
    return layers, _statistics(f"{ours}.norm", theirs)


def class_tables(ours: str, theirs: str) -> list[PlainTensor]:
    """A BatchNorm with a table of gains and one of biases for the classes, and the statistics."""
    tables = [PlainTensor(f"{ours}.{name}.weight", f"{theirs}.{name}.weight") for name in ("gain", "bias")]
    return [*tables, *_statistics(f"{ours}.norm", theirs)]


def last_norm() -> list[PlainTensor]:
    """The generator's last norm."""
    parameters = [PlainTensor("norm.weight", "output_layer.0.gain"), PlainTensor("norm.bias", "output_layer.0.bias")]
    return [*parameters, *_statistics("norm", "output_layer.0")]


def attention_layers(ours: str, theirs: str) -> tuple[list[NormalizedLayer], list[PlainTensor]]:
    """A non-local block."""
    names = {"theta": "theta", "phi": "phi", "g": "g", "out": "o"}
    layers = [NormalizedLayer(f"{ours}.{name}", f"{theirs}.{other}") for name, other in names.items()]
    return layers, [PlainTensor(f"{ours}.gamma", f"{theirs}.gamma")]


def attention_places(state: Mapping[str, Tensor]) -> list[int]:
    """The numbers of the blocks, in its count, that a non-local block follows.

    Raises:
        ValueError: If a name has no such number.
    """
    places = sorted(int(key.split(".")[1]) for key in state if key.endswith(".theta.weight"))
    if places and places[-1] >= len(state):
        raise ValueError("there are not so many blocks")
    return places


def channel_unit(widths: tuple[int, ...], given: int | None) -> int:
    """The unit of a table of widths: as it is given, if our networks can have it, or the largest."""
    fits = given is not None and given % 8 == 0 and all(width % given == 0 for width in widths)
    return given if given is not None and fits else math.gcd(*widths)


def rows_of(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """Rows of the weights whose names differ by a number that counts from 0.

    Raises:
        KeyError: If there is none.
    """
    sizes = [state[pattern.format(0)].shape[0]]
    while (key := pattern.format(len(sizes))) in state:
        sizes.append(state[key].shape[0])
    return sizes


def _statistics(ours: str, theirs: str) -> list[PlainTensor]:
    return [PlainTensor(f"{ours}.running_{kind}", f"{theirs}.stored_{kind}") for kind in ("mean", "var")]
