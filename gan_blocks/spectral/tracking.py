"""Parametrizations that follow the leading singular vectors of their weight.

Tested in ``tests/spectral/test_tracking.py``.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gan_blocks._checks import bad_shape, bad_value, check_whole
from gan_blocks._precision import full_precision, wide_dtype
from gan_blocks._transforms import is_traced, is_transformed
from gan_blocks.spectral.fingerprints import agrees, can_branch, fingerprint, in_narrower_dtype, reference_of
from gan_blocks.spectral.power_iteration import (
    SHORTEST,
    matrix_axes,
    power_steps,
    random_rows,
    start_rows,
    to_matrix,
    to_memory_order,
    to_torch_order,
)

__all__ = [
    "SingularVectorTracker",
    "advance_together",
    "matrix_shape",
]


class SingularVectorTracker(nn.Module, ABC):
    """A parametrization that follows the n leading singular vectors of the weight it is given.

    They advance once per update of the weight: by :func:`advance_power_iteration`, or when a weight is read in training
    mode that is not the one of the last advance. That is told by its content, up to rounding, whoever wrote it and
    however. In evaluation mode, and under the transforms of ``torch.func``, such a read advances u and v only for
    itself and stores nothing.

    Loaded vectors count as those of the loaded weight, and vectors that somebody wrote as those of the weight as it is;
    vectors that are zero or not finite start anew. On a weight that was assigned to the layer's tensor, or loaded
    without vectors, they take ``warmup_iterations`` at the next advance, since that is a different weight, not an
    update. Inside :func:`frozen_power_iteration`, and while a model is traced or exported, a read takes u and v as they
    are.

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
        reference: What the weight of the last advance is known by, of shape ``(2, out)``; NaN where the next one read
            is taken as that. No part of the state dict.
        fresh: Whether u and v have yet to start.
        unsettled: Whether the weight was put in from outside, so that u and v are of another.
        advances: How often u and v have advanced, but for reads on a device or in a compiled graph.
        readers: The threads whose next forward pass is a read of the layer's tensor, and notices an update. Others are
            pure functions of the weight and the buffers.
        frozen: How many :func:`frozen_power_iteration` contexts hold the vectors.

    Raises:
        ValueError: If the weight or a number is outside its range, or at a read of a weight in shards.
    """

    u: Tensor
    v: Tensor
    reference: Tensor

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
        check_whole(owner, num_singular_values=num_singular_values)
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
        self.advances = 0
        self.readers: set[int] = set()
        self.fresh = weight.is_meta
        self.unsettled = False
        for name, size in (("u", out), ("v", rest)):
            rows = random_rows(num_singular_values, size, like=weight, generator=generator)
            self.register_buffer(name, rows)
        self._forget()
        self.advance(weight, n_power_iterations=warmup_iterations)

    def reset_parameters(self) -> None:
        """Let u and v start anew and settle on the weight that is read next.

        What was made on the meta device does so by itself, once it has memory.
        """
        self.fresh = True

    def expect_read(self) -> None:
        """Let the next pass of this thread notice an update, as one through the layer does."""
        self.readers.add(_this_thread())

    def vectors_to_read(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The u and v that a read of ``weight`` by the layer takes, which notices an update; v as in memory.

        For use inside :func:`full_precision`.
        """
        if self.frozen:
            return self._vectors(weight, matrix_axes(weight, self.dim))
        self.expect_read()
        _, u, v = self._read(weight)
        return u, v

    def end_read(self) -> None:
        """Say that the pass is over without a look at the weight."""
        self.readers.discard(_this_thread())

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """Compute the tensor that the layer uses from the one that the optimizer moves."""

    def right_inverse(self, value: Tensor) -> Tensor:
        """Let an assignment to the layer's tensor set the one that the optimizer moves."""
        self.unsettled = True
        return value

    def steps_due(self, n_power_iterations: int | None = None) -> int:
        """How many steps the next advance takes; None: this layer's own number."""
        steps = self.n_power_iterations if n_power_iterations is None else n_power_iterations
        return max(steps, self.warmup_iterations) if self.unsettled else steps

    def advance(self, weight: Tensor, *, n_power_iterations: int) -> None:
        """Take power iteration steps on ``weight``, in place; on the meta device nothing happens."""
        advance_together([(self, weight)], n_power_iterations)

    def _read(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weight as a matrix and the u and v of this read, in at least float32.

        For use inside :func:`full_precision`. Where autograd records, u and v are copies: an advance must not reach a
        graph that waits for its backward pass.
        """
        if hasattr(weight, "full_tensor"):
            raise ValueError(
                f"{type(self).__name__}: `weight` must be a whole tensor, but got a shard of one. "
                "Read it in the forward pass of its layer, which gathers it."
            )
        out, rest = self.u.shape[1], self.v.shape[1]
        tracing = torch._C._get_tracing_state()  # sizes are tensors then, which no condition may ask
        if not tracing and (weight.dim() <= self.dim or weight.shape[self.dim] != out or weight.numel() != out * rest):
            sizes = f"with {out} rows of {rest} elements along dim {self.dim}, as the one that it was made for"
            raise ValueError(
                f"{type(self).__name__}: `weight` must be {sizes}, but got weight of shape {tuple(weight.shape)}."
            )
        axes, own = matrix_axes(weight, self.dim), None
        matrix = _as_matrix(weight, axes)
        if self.readers and (reader := _this_thread()) in self.readers:
            self.readers.discard(reader)
            if not (self.frozen or weight.is_meta or is_traced()):
                own = self._notice(weight.detach(), matrix.detach())
        if own is not None:
            return matrix, *own
        u, v = self._vectors(weight, axes)
        # Nothing advances while a model is traced, and a copy would be another node in each trace.
        recorded = weight.requires_grad and torch.is_grad_enabled() and not torch._C._get_tracing_state()
        return (matrix, u.clone(), v.clone()) if recorded else (matrix, u, v)

    @torch.no_grad()
    def _notice(self, weight: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor] | None:
        """Advance u and v, in training mode, if a weight is not the one of the last advance.

        Args:
            weight: The weight.
            matrix: The same as a matrix.

        Returns:
            The u and v for this weight where they are others than the buffers.
        """
        pairs, steps = [(self, weight)], self.steps_due()
        # What a transform of torch.func has wrapped can be neither looked at nor stored.
        transformed = is_transformed()
        if self.fresh and not transformed:
            return self._advanced(pairs, steps)
        same = agrees(fingerprint(matrix, weight, self.dim), self.reference)
        ends = [end for rows in (self.u, self.v) for end in torch.linalg.vector_norm(rows, dim=1).aminmax()]
        if can_branch(weight) and not transformed:
            if same.item() and all(SHORTEST < end.item() < math.inf for end in ends):
                if math.isnan(self.reference[1, 0].item()):
                    self._remember(weight)
                return None
            return self._advanced(pairs, steps)
        # Without a look at the values: the host does not wait for the device, and a compiled graph does not break.
        lengths = torch.stack(ends)
        stays = same & ((lengths > SHORTEST) & (lengths < math.inf)).all()
        u, v = self._vectors(weight, matrix_axes(weight, self.dim))
        us, vs, references = _stepped(pairs, steps, branch=False)
        u, v = torch.where(stays, u, us[0]), torch.where(stays, v, vs[0])
        if self.training and not transformed:
            known = stays & ~self.reference[1, 0].isnan()
            _store(pairs, u[None], v[None], torch.where(known, self.reference, references[0])[None])
        return u, v

    def _remember(self, weight: Tensor) -> None:
        """Take a weight as the one that u and v belong to."""
        if weight.is_meta:
            return
        with full_precision(weight):
            matrix = _as_matrix(weight, matrix_axes(weight, self.dim))
            self.reference.copy_(reference_of(matrix, fingerprint(matrix, weight, self.dim)))

    def estimate(self, weight: Tensor, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Read the first ``count`` (None: all) of ``u[i] @ W @ v[i]``, with their gradient, and those of u and v.

        The values have the shape ``(count,)``; v has "rest" as in memory.
        """
        with full_precision(weight):
            matrix, u, v = self._read(weight)
            u, v = u[:count], v[:count]
            return ((u @ matrix) * v).sum(dim=1), u, v

    def extra_repr(self) -> str:
        """Show how the vectors are followed."""
        names = ("num_singular_values", "n_power_iterations", "dim")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def _matrix_and_vectors(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weight as a matrix, u and v, in at least float32 and with "rest" as in memory."""
        axes = matrix_axes(weight, self.dim)
        return _as_matrix(weight, axes), *self._vectors(weight, axes)

    def _vectors(self, weight: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        u, v, dtype = self.u, self.v, wide_dtype(weight)
        if u.dtype != dtype:
            u, v = u.to(dtype), v.to(dtype)
        return u, to_memory_order(v, weight, axes)

    def _advanced(self, pairs: "_Pairs", steps: int) -> tuple[Tensor, Tensor] | None:
        """Advance, or in evaluation mode return what an advance would give."""
        if self.training:
            advance_together(pairs, steps)
            return None
        us, vs, _ = _stepped(pairs, steps)
        return us[0], vs[0]

    def _forget(self) -> None:
        """Let u and v belong to whatever weight is read next."""
        dtype, device = wide_dtype(self.u), self.u.device
        reference = self._buffers.get("reference")
        if reference is not None and (reference.dtype, reference.device) == (dtype, device):
            reference.fill_(torch.nan)
            return
        with torch.inference_mode(False):  # a model that is loaded for inference may be trained later
            reference = torch.full((2, self.u.shape[1]), torch.nan, dtype=dtype, device=device)
        self.register_buffer("reference", reference, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SingularVectorTracker":
        before = self.reference
        moved: SingularVectorTracker = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.reference.dtype != wide_dtype(self.reference):
            # An advance that is due stays due in lower precision.
            kept = in_narrower_dtype(before, self.reference.dtype).to(self.reference.device)
            self.register_buffer("reference", kept, persistent=False)
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "frozen": 0, "readers": set()}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # The loaded vectors belong to the loaded weight: to advance them would break a bit-identical resume.
        if prefix + "u" in state_dict:
            self.fresh = self.unsettled = False
            self._forget()


def matrix_shape(owner: str, weight: Tensor, dim: int) -> tuple[int, int]:
    """Return (out, rest) of a weight read as a matrix, or raise why it cannot be."""
    if weight.dim() < 2:
        raise bad_shape(owner, "weight", "(out, in, ...)", weight)
    if not -weight.dim() <= dim < weight.dim():
        raise bad_value(owner, "dim", f"between {-weight.dim()} and {weight.dim() - 1}", dim)
    return weight.shape[dim], weight.numel() // max(weight.shape[dim], 1)


def advance_together(pairs: "_Pairs", n_power_iterations: int) -> None:
    """Advance trackers whose weights agree in matrix shape, dtype and device, in one product."""
    if pairs[0][1].is_meta:
        return
    _store(pairs, *_stepped(pairs, n_power_iterations))
    if not torch.compiler.is_compiling():
        for tracker, _ in pairs:
            vars(tracker)["advances"] += 1  # a tenth of what the attribute of a module costs


_Pairs = Sequence[tuple[SingularVectorTracker, Tensor]]


@torch.no_grad()
def _stepped(pairs: _Pairs, n_power_iterations: int, *, branch: bool | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return u, v in the order of memory, and the reference of each tracker, advanced on its weight.

    ``branch`` says whether the values may be looked at; None: where that costs nothing.
    """
    (example, weight), warmup = pairs[0], max(tracker.warmup_iterations for tracker, _ in pairs)
    with full_precision(weight):
        parts = zip(*(tracker._matrix_and_vectors(weight) for tracker, weight in pairs), strict=True)
        matrices, us, vs = (torch.stack(part) if len(part) > 1 else part[0][None] for part in parts)
        if example.fresh:
            us, n_power_iterations = start_rows(us), max(warmup, n_power_iterations)
        branch = can_branch(weight) if branch is None else branch
        us, vs = power_steps(matrices, us, vs, n_power_iterations, restart=warmup, branch=branch)
        return us, vs, reference_of(matrices, fingerprint(matrices, weight, example.dim))


@torch.no_grad()
def _store(pairs: _Pairs, us: Tensor, vs: Tensor, references: Tensor) -> None:
    # In place: the buffers may be shared with other processes or held by a compiled graph.
    torch._foreach_copy_([tracker.u for tracker, _ in pairs], us.unbind())
    torch._foreach_copy_(
        [tracker.v for tracker, _ in pairs],
        [
            to_torch_order(v, weight, matrix_axes(weight, tracker.dim))
            for (tracker, weight), v in zip(pairs, vs.unbind(), strict=True)
        ],
    )
    torch._foreach_copy_([tracker.reference for tracker, _ in pairs], references.unbind())
    for tracker, _ in pairs:
        if tracker.fresh or tracker.unsettled:
            tracker.fresh = tracker.unsettled = False


def _as_matrix(weight: Tensor, axes: tuple[int, ...]) -> Tensor:
    return to_matrix(weight.to(wide_dtype(weight)), axes)


def _this_thread() -> int:
    # A graph is made by one thread, and the compiler does not know this function.
    return 0 if torch.compiler.is_compiling() else threading.get_ident()
