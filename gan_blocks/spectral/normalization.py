"""Spectral normalization whose power iteration advances once per update of the weight, never per read.

Tested in ``tests/spectral/test_normalization.py``.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, remove_parametrizations

from gan_blocks._checks import bad_value, check_module, check_positive
from gan_blocks._precision import full_precision
from gan_blocks.spectral.parametrized import chain_input, chains_of
from gan_blocks.spectral.registering import (
    default_dim,
    kind_of,
    own_class,
    register_tracker,
    tensor_to_track,
    trackers_of,
)
from gan_blocks.spectral.tracking import SingularVectorTracker

__all__ = [
    "CachedWeight",
    "SpectralNorm",
    "estimated_singular_values",
    "fold_spectral_norm",
    "spectral_norm",
    "written",
]

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True, eq=False)  # not a tuple, which torch takes apart and makes anew when it exports a model
class CachedWeight:
    """What :func:`gan_blocks.cached_spectral_norm` has made of a weight."""

    weight: Tensor
    normalized: Tensor
    state: tuple[int, ...]
    """What :func:`written` gave when it was made."""

    def of(self, weight: Tensor) -> Tensor | None:
        """The cached normalized weight, or None if it is stale.

        It is stale for another weight, for one that has changed, if the result was modified, or if a graph is needed
        and it has none.
        """
        if torch._C._get_tracing_state():
            return None  # a trace would take it as a constant
        if weight is not self.weight or (
            not torch.compiler.is_compiling() and written(weight, self.normalized) != self.state
        ):
            return None
        if weight.requires_grad and torch.is_grad_enabled():
            return self.normalized if self.normalized.requires_grad else None
        return self.normalized.detach()


def written(weight: Tensor, normalized: Tensor) -> tuple[int, ...]:
    """A stamp that changes when the weight or its cached result is written, moved or converted."""
    return weight._version, weight.data_ptr(), normalized._version


class SpectralNorm(SingularVectorTracker):
    r"""Divide a weight by an estimate of its largest singular value; registered by :func:`spectral_norm`.

    .. math:: \bar W = \frac{W}{\max(\sigma, \epsilon)}, \qquad \sigma = u_0^\top W v_0

    The gradient flows through :math:`\sigma`, with u and v held constant. Computed in float32 or wider, also under
    autocast, and returned in the dtype of the weight. Calling this module
    never changes u and v; reading the layer's tensor does so once per update, as :func:`spectral_norm` says.

    Args:
        weight: The weight to follow, with at least two dimensions; read as a matrix of shape (out, rest).
        num_singular_values: How many singular values n to follow, at most min(out, rest); the first one divides.
        n_power_iterations: Steps of power iteration per update of the weight, at least 1.
        eps: Smallest divisor, greater than 0.
        warmup_iterations: Steps from the random start, at least 0.
        dim: The dimension of ``weight`` that is "out".
        generator: Source of the random start, None takes torch's global one.

    Attributes:
        u: Left singular vectors, rows orthonormal, in float32 or wider.
        v: Right singular vectors.
        cached: What :func:`cached_spectral_norm` has computed, inside of it.
        opened: The same of all such contexts that are open, the last one last.

    Shape:
        - u: ``(n, out)``
        - v: ``(n, rest)``
        - input and output: that of ``weight``

    Raises:
        ValueError: If an argument is outside its range.

    References:
        Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks".

    Example:
        >>> weight = torch.diag(torch.tensor([4.0, 2.0, 1.0]))
        >>> SpectralNorm(weight, warmup_iterations=50)(weight).diag().tolist()
        [1.0, 0.5, 0.25]
    """

    cached: CachedWeight | None = None
    opened: tuple[CachedWeight, ...] = ()

    def __init__(
        self,
        weight: Tensor,
        *,
        num_singular_values: int = 1,
        n_power_iterations: int = 1,
        eps: float = 1e-4,
        warmup_iterations: int = 15,
        dim: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        check_positive("SpectralNorm", eps=eps)
        super().__init__(
            weight,
            num_singular_values=num_singular_values,
            n_power_iterations=n_power_iterations,
            warmup_iterations=warmup_iterations,
            dim=dim,
            generator=generator,
        )
        self.eps = eps

    def forward(self, weight: Tensor) -> Tensor:
        """Return the normalized weight."""
        if self.cached is not None and (normalized := self.cached.of(weight)) is not None:
            self.end_read()
            return normalized
        if weight.is_meta:
            return weight.clone()
        with full_precision(weight):
            matrix, u, v = self._read(weight)
            sigma = torch.dot(u[0], torch.mv(matrix, v[0]))
            return (weight.to(matrix.dtype) / sigma.clamp(min=self.eps)).to(weight.dtype)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{super().extra_repr()}, eps={self.eps}"

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "cached": None, "opened": ()}


def spectral_norm(
    module: ModuleT,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-4,
    dim: int | None = None,
    *,
    num_singular_values: int = 1,
    warmup_iterations: int = 15,
    generator: torch.Generator | None = None,
) -> ModuleT:
    r"""Divide a weight of a layer by a running estimate of its largest singular value.

    .. math:: \bar W = \frac{W}{\max(\sigma, \epsilon)}, \qquad \sigma = u^\top W v, \qquad
        v \leftarrow \frac{W^\top u}{\|W^\top u\|}, \quad u \leftarrow \frac{W v}{\|W v\|}

    The weight is read as a matrix of shape (out, rest); u and v are constants to the gradient, which flows through
    :math:`\sigma`. All of it happens in float32 or wider, also under autocast.

    **When u and v advance.** Once per update of the weight, never per read. In training mode the first read of a weight
    that is not the one of the last advance advances them, whoever wrote it: the layer compares the weight's product
    with a fixed vector, up to rounding. It does so under :func:`torch.compile` too, and for weights that
    ``fully_shard`` gathers. Calling :func:`advance_power_iteration` after each optimizer step gives the same, and is
    faster for many layers. In evaluation mode and under the transforms of ``torch.func`` nothing is stored; a weight
    that u and v do not belong to is normalized by an advance for only that read. Reads inside
    :func:`frozen_power_iteration`, in traces and in exports take u and v as they are, so that a weight that has just
    been updated should be read, or advanced, before. Where every read counts, as in serving, fold the norm.

    **What u and v belong to.** Loading a state dict or copying the layer takes them as those of their weight, so a
    resumed run continues bit for bit. A weight that is assigned (``layer.weight = w``), or loaded without u and v, is
    another, not an update: at the next advance they take ``warmup_iterations``. In evaluation mode every read does so
    anew: call :func:`advance_power_iteration` once after it, or fold the norm; of several processes, each has to put
    the weight in. What is written in place counts as an update; where that is another weight, call
    ``advance_power_iteration(model, n_power_iterations=15)`` once. Saving a state dict in training mode counts as a
    read, and in evaluation mode saves the vectors that a read would take; either gathers a weight in shards, so each
    process has to. Vectors that you write yourself stay until the weight changes; vectors that are zero or not finite
    start anew, as those of a layer that was made on the meta device do at its first read. Processes that were seeded
    differently have different ones until the buffers are broadcast once, as ``DistributedDataParallel`` does when it is
    made.

    **Differences from torch's spectral_norm.** That one advances at every read in training mode. It also starts each
    step with u; here v is first, as in the paper, so that u alone determines the step. The result for given u and v
    is the same. Norms are not floored by ``eps`` in the steps: the floor would shrink u and v of a weight that is or
    starts near zero, and the weight would come out :math:`1/\epsilon` times too large once it grows.

    Args:
        module: Any layer; transposed convolutions are read with their second dimension as "out". It must be
            initialized before: the first estimate is taken from the weight as it is.
        name: The parameter to normalize. Other parametrizations registered on it earlier act first.
        n_power_iterations: Steps of power iteration per update of the weight, at least 1.
        eps: Smallest divisor, greater than 0 (torch's is 1e-12); a weight of zeros stays zero.
        dim: The dimension that is "out"; None takes 1 for transposed convolutions, else 0.
        num_singular_values: How many singular values to follow, at least 1 and at most min(out, rest). Only the
            first divides; the others are for :func:`estimated_singular_values` and cost n times as much per step.
        warmup_iterations: Steps from the random start, at least 0. After 0 the weight is arbitrarily scaled until the
            first advance. On the meta device they are taken later, at the first read.
        generator: Source of the random start; None takes torch's global one.

    Returns:
        ``module`` itself, whose class is now a subclass such as ``ParametrizedConv2d``. In its state dict ``weight``
        has become ``parametrizations.weight.original`` with ``parametrizations.weight.0.u`` and ``.v``, of shape
        ``(num_singular_values, out)`` and ``(num_singular_values, rest)``.

    Raises:
        ValueError: If the module has no such parameter, it has fewer than two dimensions or spectral norm already,
            or another argument is outside its range; at a read outside of the forward pass, of a weight in shards.

    References:
        Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", algorithm 1; Brock et al.
        2018, Appendix C, for eps.

    Example:
        >>> from gan_blocks import advance_power_iteration
        >>> layer = spectral_norm(torch.nn.Linear(4, 3), n_power_iterations=20)
        >>> advance_power_iteration(layer)
        >>> round(torch.linalg.matrix_norm(layer.weight, 2).item(), 2)
        1.0
    """
    weight = tensor_to_track("spectral_norm", module, name, SpectralNorm)
    tracker = SpectralNorm(
        weight,
        num_singular_values=num_singular_values,
        n_power_iterations=n_power_iterations,
        eps=eps,
        warmup_iterations=warmup_iterations,
        dim=default_dim(module) if dim is None else dim,
        generator=generator,
    )
    register_tracker(module, name, tracker)
    return module


def estimated_singular_values(module: nn.Module, name: str = "weight") -> Tensor:
    """Return the current estimates of a normalized layer's largest singular values, before normalization.

    They are as good as u and v: from below, and exact after convergence. Nothing advances.

    Args:
        module: A layer with :func:`spectral_norm`.
        name: Its normalized tensor.

    Returns:
        ``u[i] @ W @ v[i]`` for each followed singular value, largest first, detached, in float32 or wider.

    Shape:
        - returns: ``(num_singular_values,)``

    Raises:
        ValueError: If the tensor has no spectral norm.

    Example:
        >>> layer = torch.nn.Linear(2, 2, bias=False)
        >>> _ = layer.load_state_dict({"weight": torch.diag(torch.tensor([2.0, 5.0]))})
        >>> estimated_singular_values(spectral_norm(layer, num_singular_values=2)).round(decimals=3).tolist()
        [5.0, 2.0]
    """
    check_module("estimated_singular_values", "module", module)
    normalized = _normalized(module)
    if name not in normalized:
        rule = f"a spectrally normalized tensor of {kind_of(module)} ({', '.join(normalized) or 'it has none'})"
        raise bad_value("estimated_singular_values", "name", rule, name)
    chain, index, tracker = normalized[name]
    with torch.no_grad():
        return tracker.estimate(chain_input(chain, index))[0]


def fold_spectral_norm(model: ModuleT) -> ModuleT:
    """Turn every spectrally normalized tensor of a model into a plain parameter with the value it has in evaluation.

    For inference and for export: the forward pass no longer divides, and the state dict has its ordinary names. Other
    parametrizations of the same tensor are folded with it. Fold a copy if training is to continue.

    Args:
        model: The model; it is changed in place.

    Returns:
        ``model`` itself. The parameters are the same objects, now with the normalized values.

    Raises:
        ValueError: If no tensor of the model has spectral norm.

    Example:
        >>> layer = fold_spectral_norm(spectral_norm(torch.nn.Linear(4, 3)))
        >>> list(layer.state_dict())
        ['bias', 'weight']
    """
    check_module("fold_spectral_norm", "model", model)
    normalized = [
        (module, name, chain) for module in model.modules() for name, (chain, *_) in _normalized(module).items()
    ]
    if not normalized:
        raise bad_value("fold_spectral_norm", "model", "a module with spectral norm", kind_of(model))
    for module, name, chain in normalized:
        own_class(module)
        chain.eval()
        remove_parametrizations(module, name)
    return model


def _normalized(module: nn.Module) -> dict[str, tuple[ParametrizationList, int, SpectralNorm]]:
    """Return the spectral norms of one layer: of which tensor, in which chain, at which position of it."""
    return {
        name: (chain, index, tracker)
        for name, chain in chains_of(module).items()
        for index, tracker in trackers_of(chain)
        if isinstance(tracker, SpectralNorm)
    }
