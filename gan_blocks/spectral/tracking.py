"""Parametrizations that follow the leading singular vectors of their weight.

Tested in ``tests/spectral/test_tracking.py``.
"""

import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import (
    ParametrizationList,
    is_parametrized,
    register_parametrization,
    type_before_parametrizations,
)

from gan_blocks._checks import bad_shape, bad_value, check_real_floating, check_whole
from gan_blocks._precision import full_precision, wide_dtype
from gan_blocks.spectral.power_iteration import (
    matrix_axes,
    power_step,
    random_rows,
    to_matrix,
    to_memory_order,
    to_torch_order,
)
from gan_blocks.spectral.weight_updates import (
    WeightState,
    chain_input,
    chains_of,
    count_fused_updates,
    count_updates,
    sources_of,
    weight_state,
)

__all__ = [
    "SingularVectorTracker",
    "advance_together",
    "catch_up",
    "default_dim",
    "kind_of",
    "matrix_shape",
    "own_class",
    "register_tracker",
    "tensor_to_track",
    "trackers_of",
]


class SingularVectorTracker(nn.Module, ABC):
    """A parametrization that follows the n leading singular vectors of the weight it is given.

    The forward pass is a pure function of the weight and the buffers. These advance once per update of the weight:
    by :func:`advance_power_iteration`, or when the layer's tensor is read in training mode and the weight has been
    updated since (see :func:`register_tracker`). Loaded vectors count as those of the loaded weight, and a deep copy
    advances next when its original would.

    Args:
        weight: The tensor to follow, with at least two dimensions; read as a matrix of shape (out, rest).
        num_singular_values: How many singular values n to follow.
        n_power_iterations: Steps per update of the weight.
        warmup_iterations: Steps from the random start.
        dim: The dimension of ``weight`` that is "out".
        generator: Source of the random start; None takes torch's global one.

    Attributes:
        u: Left vectors, rows orthonormal, of shape ``(n, out)``, in float32 or wider.
        v: Right vectors, of shape ``(n, rest)``, "rest" in torch's order of dimensions.
        frozen: How many :func:`frozen_power_iteration` contexts hold the vectors.
        seen: The state of the weight that u and v belong to; None takes the next one read as such.
        chain: Refers to the parametrizations that this is one of; None outside of any, or not read yet.

    Raises:
        ValueError: If the weight or a number is outside its range.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self,
        weight: Tensor,
        *,
        num_singular_values: int,
        n_power_iterations: int,
        warmup_iterations: int,
        dim: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        out, rest = matrix_shape(owner, weight, dim)
        if not 1 <= num_singular_values <= min(out, rest):
            rule = f"between 1 and min(out, rest) = {min(out, rest)}"
            raise bad_value(owner, "num_singular_values", rule, num_singular_values)
        check_whole(owner, n_power_iterations=n_power_iterations, warmup_iterations=warmup_iterations, dim=dim)
        if n_power_iterations < 1:
            raise bad_value(owner, "n_power_iterations", "at least 1", n_power_iterations)
        if warmup_iterations < 0:
            raise bad_value(owner, "warmup_iterations", "at least 0", warmup_iterations)
        self.dim = dim % weight.dim()
        self.num_singular_values = num_singular_values
        self.n_power_iterations = n_power_iterations
        self.warmup_iterations = warmup_iterations
        self.frozen = 0
        self.seen: WeightState | None = None
        # Weak, or whoever copies or pickles the tracker alone would take the weight along.
        self.chain: weakref.ref[ParametrizationList] | None = None
        for name, size in (("u", out), ("v", rest)):
            rows = random_rows(num_singular_values, size, like=weight, generator=generator)
            self.register_buffer(name, rows)
        self.advance(weight, n_power_iterations=warmup_iterations)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw u and v anew, from torch's global generator, and let them settle on the weight as it is now.

        Call it where they hold nothing yet, as after ``to_empty``, once the raw weight has its values.
        """
        chain = self.chain() if self.chain else None
        index = None if chain is None else list(chain).index(self)
        weight = None if chain is None or index is None else chain_input(chain, index)
        for rows in (self.u, self.v):
            fresh = random_rows(*rows.shape, like=rows if weight is None else weight, generator=None)
            rows.copy_(fresh)
        if chain is not None and index is not None and weight is not None:
            self.advance(weight, n_power_iterations=self.warmup_iterations)
            self.seen = weight_state(chain, index)

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """Compute the tensor that the layer uses from the one that the optimizer moves."""

    def right_inverse(self, value: Tensor) -> Tensor:
        """Let an assignment to the layer's tensor set the one that the optimizer moves."""
        return value

    def advance(self, weight: Tensor, *, n_power_iterations: int) -> None:
        """Take power iteration steps on ``weight``, in place; on the meta device nothing happens."""
        advance_together([(self, weight)], n_power_iterations)

    def _matrix_and_vectors(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weight as a matrix, u and v, in at least float32; for use inside :func:`full_precision`.

        Where autograd records, u and v are copies: an advance must not reach a graph that waits for its backward pass.
        """
        axes, dtype = matrix_axes(weight, self.dim), wide_dtype(weight)
        # Nothing advances while a model is traced, and a copy would be another node in each trace.
        recorded = weight.requires_grad and torch.is_grad_enabled() and not torch._C._get_tracing_state()
        u, v = self.u.to(dtype, copy=recorded), self.v.to(dtype, copy=recorded)
        return to_matrix(weight.to(dtype), axes), u, to_memory_order(v, weight, axes)

    def estimate(self, weight: Tensor, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first ``count`` (None: all) of ``u[i] @ W @ v[i]``, with their gradient, and those of u and v.

        The values have the shape ``(count,)``; v has "rest" as in memory.
        """
        with full_precision(weight):
            matrix, u, v = self._matrix_and_vectors(weight)
            u, v = u[:count], v[:count]
            return ((u @ matrix) * v).sum(dim=1), u, v

    def extra_repr(self) -> str:
        """Show how the vectors are followed."""
        names = ("num_singular_values", "n_power_iterations", "dim")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "chain": None, "seen": None, "frozen": 0}

    def __deepcopy__(self, memo: dict[int, Any]) -> "SingularVectorTracker":
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        chain = self.chain() if self.chain else None
        if chain is not None and id(chain) in memo and self.seen is not None:
            # The copy of the weight counts its updates from anew; an advance that is due is due for the copy too.
            sources = sources_of(chain, list(chain).index(self))
            copies = tuple(count_updates(copy.deepcopy(source, memo)) for source in sources)
            twin.seen = copies if self.seen == tuple(map(count_updates, sources)) else ()
            twin.chain = weakref.ref(memo[id(chain)])
        return twin

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # The loaded vectors belong to the loaded weight: to advance them would break a bit-identical resume.
        if prefix + "u" in state_dict:
            self.seen = None


def tensor_to_track(owner: str, module: nn.Module, name: str, kind: type[SingularVectorTracker]) -> Tensor:
    """Return the tensor of a layer that a new tracker will be given, or raise why it cannot have one."""
    chains = chains_of(module)
    parameters = [key for key, value in module.named_parameters(recurse=False) if not is_lazy(value)]
    names = sorted([*parameters, *chains])
    if name not in names:
        rule = f"an initialized parameter of {kind_of(module)} ({', '.join(names) or 'it has none'})"
        raise bad_value(owner, "name", rule, name)
    if name in chains and any(isinstance(other, kind) for other in chains[name]):
        raise bad_value(owner, "name", f"a parameter without {kind.__name__}", name)
    with torch.no_grad():
        weight: Tensor = getattr(module, name)
    check_real_floating(owner, name, weight)
    return weight


def matrix_shape(owner: str, weight: Tensor, dim: int) -> tuple[int, int]:
    """Return (out, rest) of a weight read as a matrix, or raise why it cannot be."""
    if weight.dim() < 2:
        raise bad_shape(owner, "weight", "(out, in, ...)", weight)
    if not -weight.dim() <= dim < weight.dim():
        raise bad_value(owner, "dim", f"between {-weight.dim()} and {weight.dim() - 1}", dim)
    return weight.shape[dim], weight.numel() // max(weight.shape[dim], 1)


def default_dim(module: nn.Module) -> int:
    """Return the dimension of a layer's weight that counts its outputs."""
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return 1 if isinstance(module, transposed) else 0


def kind_of(module: nn.Module) -> str:
    """Return the name of a layer's class as its author wrote it."""
    return type_before_parametrizations(module).__name__


def register_tracker(module: nn.Module, name: str, tracker: SingularVectorTracker) -> None:
    """Register a tracker as the last parametrization of a tensor, and let reads of the tensor notice its updates.

    Saving the state counts as a read, or a resumed run would lack an advance that was due. So does loading.
    """
    own_class(module)
    register_parametrization(module, name, tracker)
    chain = chains_of(module)[name]
    count_fused_updates()
    tracker.seen, tracker.chain = weight_state(chain, len(chain) - 1), weakref.ref(chain)
    if len(trackers_of(chain)) == 1:
        chain.register_forward_pre_hook(catch_up)
        chain.register_state_dict_pre_hook(catch_up)
        chain.register_load_state_dict_post_hook(catch_up)


def trackers_of(chain: ParametrizationList) -> list[tuple[int, SingularVectorTracker]]:
    """Return the trackers among the parametrizations of one tensor, each with its position."""
    return [(index, module) for index, module in enumerate(chain) if isinstance(module, SingularVectorTracker)]


def own_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own before its parametrizations change.

    torch keeps the parametrized tensors as properties of a class made for one module, but deep copies share that
    class: without this, folding a copy takes the weight away from the original.
    """
    if is_parametrized(module):
        shared = type(module)
        members = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, members)


def catch_up(chain: ParametrizationList, *_: object) -> None:
    """Take the advances that are due before a tensor is read: in training mode, one for each update of its weight."""
    # Version counters and the writes below would break the graph.
    if torch.compiler.is_compiling():
        return
    for index, tracker in trackers_of(chain):
        if tracker.seen is not None and (tracker.frozen or not tracker.training):
            continue
        state = weight_state(chain, index)
        if tracker.seen is None:
            tracker.seen, tracker.chain = state, weakref.ref(chain)
        elif state != tracker.seen:
            with torch.no_grad():
                tracker.advance(chain_input(chain, index), n_power_iterations=tracker.n_power_iterations)
            tracker.seen = state


@torch.no_grad()
def advance_together(pairs: Sequence[tuple[SingularVectorTracker, Tensor]], n_power_iterations: int) -> None:
    """Advance trackers whose weights agree in matrix shape, dtype and device, in one product."""
    example = pairs[0][1]
    if example.is_meta:
        return
    with full_precision(example):
        parts = zip(*(tracker._matrix_and_vectors(weight) for tracker, weight in pairs), strict=True)
        matrices, us, vs = (torch.stack(part) if len(part) > 1 else part[0][None] for part in parts)
        for _ in range(n_power_iterations):
            us, vs = power_step(matrices, us, vs)
    # In place: the buffers may be shared with other processes or held by a compiled graph.
    torch._foreach_copy_([tracker.u for tracker, _ in pairs], us.unbind())
    torch._foreach_copy_(
        [tracker.v for tracker, _ in pairs],
        [
            to_torch_order(v, weight, matrix_axes(weight, tracker.dim))
            for (tracker, weight), v in zip(pairs, vs.unbind(), strict=True)
        ],
    )
