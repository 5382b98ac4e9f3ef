"""Normalized weights that are computed once and shared by all forward passes until the next update.

Tested in ``tests/spectral/test_caching.py``, its gradients in ``test_cached_gradients.py``.
"""

import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from gan_blocks._checks import check_module
from gan_blocks._precision import full_precision, wide_dtype
from gan_blocks._transforms import is_traced, is_transformed
from gan_blocks.spectral.advancing import PaddedGroup, group_together
from gan_blocks.spectral.normalization import CachedWeight, SpectralNorm, written
from gan_blocks.spectral.padding import padded_stack, unpadded
from gan_blocks.spectral.parametrized import chains_in
from gan_blocks.spectral.power_iteration import matrix_axes, to_matrix, to_torch_order, to_weight

__all__ = ["cached_spectral_norm"]

_LOCK = threading.RLock()  # threads may share a model, and with it the memory of its groups


def cached_spectral_norm(model: nn.Module) -> AbstractContextManager[None]:
    r"""Compute every spectrally normalized weight of a model once: inside, all its forward passes share it.

    For the time between two updates, whatever is read how often: two critic calls, micro-batches, recomputed forward
    passes. Up to rounding the values are those of a read outside, and so are the gradients: each backward pass adds up
    those of all reads at the normalized weight and sends the sum once through

    .. math:: \frac{\partial L}{\partial W} = \frac{1}{\sigma}\Big(G - \langle G, \bar W \rangle\, u_0 v_0^\top\Big),
        \qquad G = \frac{\partial L}{\partial \bar W}

    (only :math:`G / \epsilon` where :math:`\sigma < \epsilon`). As with :func:`torch.nn.utils.parametrize.cached`,
    whose graph however serves a single backward pass, an update of the weights belongs after the context. Should one
    come inside, the reads after it compute what they need themselves.

    An update before the context is noticed when it begins; inside, the singular vectors stay. Where a tensor has other
    parametrizations beside its spectral norm, or a dtype narrower than float32, it is read as always.

    Args:
        model: Any module; without spectral norms nothing happens.

    Returns:
        A context manager. It looks up the layers of the model when it is made, and can be entered any number of times;
        on the CPU it computes nothing anew where no weight has changed since the last time.

    Raises:
        TypeError: If ``model`` is no module.

    References:
        Miyato et al. 2018, "Spectral Normalization for Generative Adversarial Networks", equation 10.

    Example:
        >>> from gan_blocks import cached_spectral_norm, spectral_norm
        >>> critic = spectral_norm(torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.Adam(critic.parameters())
        >>> with cached_spectral_norm(critic):
        ...     for x in torch.ones(4, 2, 8):
        ...         critic(x).mean().backward()
        >>> optimizer.step()
    """
    check_module("cached_spectral_norm", "model", model)
    return _Cache(model)


class _Cache(AbstractContextManager[None]):
    """What :func:`cached_spectral_norm` returns."""

    def __init__(self, model: nn.Module) -> None:
        chains = [chain for chain in chains_in(model) if len(chain) == 1 and chain.is_tensor]
        self.sources = [(chain[0], chain) for chain in chains if isinstance(chain[0], SpectralNorm)]
        self.layouts: object = None
        self.groups: list[tuple[list[int], PaddedGroup | None]] = []
        self.entered: list[list[tuple[SpectralNorm, CachedWeight]]] = []
        self.known: list[tuple[float, ...]] | None = None
        self.has_graph: list[bool] = []
        self.modes: list[str] = []
        self.made: list[tuple[SpectralNorm, CachedWeight]] = []
        self.divisors: list[Tensor] = []

    def __enter__(self) -> None:
        with _LOCK:
            entered = [] if is_transformed() else self._made_now()
            for norm, cached in entered:
                _hold(norm, (*norm.opened, cached), norm.frozen + 1)
            self.entered.append(entered)

    def _made_now(self) -> list[tuple[SpectralNorm, CachedWeight]]:
        found = [(norm, source.original) for norm, source in self.sources]
        needs_graph = [weight.requires_grad and torch.is_grad_enabled() for _, weight in found]
        modes = _modes(found)
        if not self._is_made(found, needs_graph, modes):
            self.made, self.known = [], None  # before the new ones are
            has_graph = torch.is_grad_enabled()
            # What is read for inference now may be part of a graph the next time.
            with torch.inference_mode(False), torch.set_grad_enabled(has_graph):
                self.made = self._make(found)
            # Counted only now: an update that was noticed has moved the vectors.
            self.known, self.has_graph, self.modes = _counted(found), needs_graph, modes
        return self.made

    def _is_made(
        self, found: Sequence[tuple[SpectralNorm, Tensor]], needs_graph: Sequence[bool], modes: Sequence[str]
    ) -> bool:
        """Whether a read would give what it gave the last time, with a graph if one is needed now."""
        known = _counted(found)
        return (
            known is not None
            and known == self.known
            and all(had or not needs for had, needs in zip(self.has_graph, needs_graph, strict=True))
            # What training has noticed holds in every mode. Where a context is open, it is shared.
            and all(
                was in ("training", now) or norm.opened
                for (norm, _), was, now in zip(found, self.modes, modes, strict=True)
            )
            and self._still_holds()
        )

    @torch.no_grad()
    def _still_holds(self) -> bool:
        """Whether each weight gives what was made of it, whoever wrote either, also where torch does not count that."""
        cached = [each for _, each in self.made]
        values = torch._foreach_div([each.weight for each in cached], self.divisors)
        return all(map(torch.equal, values, (each.normalized for each in cached)))

    def _make(self, found: Sequence[tuple[SpectralNorm, Tensor]]) -> list[tuple[SpectralNorm, CachedWeight]]:
        layouts = [
            (_is_plain(norm, weight), norm.eps, weight.dtype, weight.device, weight.shape, weight.stride())
            for norm, weight in found
        ]
        if layouts != self.layouts:
            self.layouts, self.groups = layouts, _grouped(found)
        groups = [
            _Normalized(pairs) if padded is None else _Padded(pairs, padded)
            for pairs, padded in (([found[index] for index in group], padded) for group, padded in self.groups)
        ]
        weights = [weight for group in groups for weight in group.weights]
        values = _Normalize.apply(groups, *weights) if groups else ()  # type: ignore[no-untyped-call]
        norms = [norm for group in groups for norm in group.norms]
        self.divisors = [divisor for group in groups for divisor in group.made[1].flatten().unbind()]
        return [
            (norm, CachedWeight(weight, value, written(weight, value)))
            for norm, weight, value in zip(norms, weights, values, strict=True)
        ]

    def __exit__(self, *_: object) -> None:
        with _LOCK:
            for norm, cached in self.entered.pop():
                # Not always the last one: contexts of other threads end when they do.
                last = max(place for place, each in enumerate(norm.opened) if each is cached)
                _hold(norm, norm.opened[:last] + norm.opened[last + 1 :], norm.frozen - 1)


def _modes(found: Sequence[tuple[SpectralNorm, Tensor]]) -> list[str]:
    """What a read does about an update: advances the vectors, does so only for itself, or takes them as they are."""
    traced = is_traced()
    return ["held" if norm.frozen or traced else "training" if norm.training else "evaluation" for norm, _ in found]


def _counted(found: Sequence[tuple[SpectralNorm, Tensor]]) -> list[tuple[float, ...]] | None:
    """What becomes another at each write that torch counts; None where it counts none, or a look at values costs."""
    # Looking at values is free only on the CPU, and of a shard no process sees the whole.
    if not found or not all(type(weight) is nn.Parameter and weight.device.type == "cpu" for _, weight in found):
        return None
    try:
        return [
            (
                *(id(weight), weight.data_ptr(), weight._version),
                *(norm.eps, norm.fresh, *(rows._version for rows in _rows(norm))),
            )
            for norm, weight in found
        ]
    except RuntimeError:  # made for inference
        return None


def _is_plain(norm: SpectralNorm, weight: Tensor) -> bool:
    """Whether a weight is an ordinary parameter, of which torch counts the writes."""
    return type(weight) is nn.Parameter and not any(tensor.is_inference() for tensor in (weight, *_rows(norm)))


def _rows(norm: SpectralNorm) -> tuple[Tensor, Tensor]:
    return norm._buffers["u"], norm._buffers["v"]  # type: ignore[return-value]


def _hold(norm: SpectralNorm, opened: tuple[CachedWeight, ...], frozen: int) -> None:
    # Not by attribute, for which a module first looks whether it is a parameter: ten times as long.
    vars(norm).update(opened=opened, cached=opened[-1] if opened else None, frozen=frozen)


def _grouped(found: Sequence[tuple[SpectralNorm, Tensor]]) -> list[tuple[list[int], PaddedGroup | None]]:
    """Those whose weight is an ordinary parameter, by :func:`group_together`, with memory where they are padded."""
    alike = defaultdict[object, list[int]](list)
    for index, (norm, weight) in enumerate(found):
        if _is_plain(norm, weight) and not weight.is_meta and weight.dtype == wide_dtype(weight):
            alike[norm.eps, weight.dtype].append(index)
    groups = []
    for indices in alike.values():
        for positions, padded in group_together([found[index] for index in indices]):
            group = [indices[position] for position in positions]
            groups.append((group, PaddedGroup([found[index] for index in group]) if padded else None))
    return groups


class _Normalized:
    """Weights that agree in shape as matrices, dtype and device, and what they become."""

    def __init__(self, pairs: Sequence[tuple[SpectralNorm, Tensor]]) -> None:
        self.norms, self.weights = zip(*pairs, strict=True)
        self.versions = [weight._version for weight in self.weights]
        self.axes = [matrix_axes(weight, norm.dim) for norm, weight in pairs]
        with torch.no_grad(), full_precision(self.weights[0]):
            # Copies: an advance after the context must not reach a graph that waits for its backward pass.
            self.us, self.vs = self.vectors()
            self.made = self.make()
        self.version = self.made[2]._version

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Copies of the first u and v of each: ``(n, 1, out)`` and ``(n, 1, rest)``."""
        pairs = zip(self.norms, self.weights, strict=True)
        us, vs = zip(*(norm.vectors_to_read(weight) for norm, weight in pairs), strict=True)
        return torch.stack(us)[:, :1], torch.stack(vs)[:, :1]

    def make(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return sigma, what divides and the normalized weights: ``(n, 1, 1)`` twice and ``(n, out, rest)``."""
        matrices = self.matrices(self.weights)
        sigmas = self.us @ (matrices @ self.vs.mT)
        divisors = sigmas.clamp(min=self.norms[0].eps)
        return sigmas, divisors, matrices / divisors

    def values(self) -> list[Tensor]:
        """The normalized weights, each in its shape."""
        return self.tensors(self.made[2])

    def gradients(self, of_normalized: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The gradients of the weights."""
        if all(gradient is None for gradient in of_normalized):
            return [None] * len(of_normalized)
        # A second derivative passes through sigma, too. And somebody may have written into what a read gave.
        stale = torch.is_grad_enabled() or self.made[2]._version != self.version
        sigmas, divisors, normalized = self.make() if stale else self.made
        given = [g if g is not None else torch.zeros_like(w) for g, w in zip(of_normalized, self.weights, strict=True)]
        matrices = self.matrices(given)
        products = _inner_products(matrices, normalized)
        slopes = torch.where(sigmas >= divisors, -products / divisors, 0)  # where eps divides, it is a constant
        results = self.tensors((matrices / divisors).addcmul_(self.us.mT * slopes, self.vs))
        return [None if g is None else result for g, result in zip(of_normalized, results, strict=True)]

    def matrices(self, tensors: Sequence[Tensor]) -> Tensor:
        """Weights, or gradients of their shapes, as ``(n, out, rest)``."""
        each = [to_matrix(tensor, axes) for tensor, axes in zip(tensors, self.axes, strict=True)]
        return torch.stack(each) if len(each) > 1 else each[0][None]

    def tensors(self, matrices: Tensor) -> list[Tensor]:
        """Undo :meth:`matrices`."""
        parts = zip(matrices.unbind(), self.weights, self.axes, strict=True)
        return [to_weight(matrix, weight, axes) for matrix, weight, axes in parts]


def _inner_products(first: Tensor, second: Tensor) -> Tensor:
    """Of each two matrices in stacks ``(n, out, rest)``: ``(n, 1, 1)``."""
    # Not flattened, which batched gradients cannot be.
    rows = [each.reshape(len(each), -1) for each in (first, second)]
    if len(first) == 1 and not is_transformed(first):  # without a copy of all products
        return torch.dot(rows[0][0], rows[1][0])[None, None, None]
    products: Tensor = torch.linalg.vecdot(*rows)
    return products[:, None, None]


class _Padded(_Normalized):
    """Small weights of any sizes, whose matrices are padded with zeros."""

    def __init__(self, pairs: Sequence[tuple[SpectralNorm, Tensor]], memory: PaddedGroup) -> None:
        self.memory = memory
        super().__init__(pairs)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """As in :class:`_Normalized`."""
        us, vs = zip(*(self._rows_of(*pair) for pair in zip(self.norms, self.weights, strict=True)), strict=True)
        return self.memory.rows["u"].filled(us).clone(), self.memory.rows["v"].filled(vs).clone()

    def _rows_of(self, norm: SpectralNorm, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The u and v of a read, as the buffers have them."""
        if norm.frozen:
            return _rows(norm)
        u, v = norm.vectors_to_read(weight)
        return u, to_torch_order(v, weight, matrix_axes(weight, norm.dim))

    def values(self) -> list[Tensor]:
        """As in :class:`_Normalized`."""
        return list(torch._foreach_div(self.weights, self.made[1].flatten().unbind()))

    def matrices(self, tensors: Sequence[Tensor]) -> Tensor:
        """As in :class:`_Normalized`; without autograd in memory that the next call overwrites."""
        if torch.is_grad_enabled() or is_transformed(*tensors):
            return padded_stack(tensors)
        return self.memory.matrices.filled(tensors)

    def tensors(self, matrices: Tensor) -> list[Tensor]:
        """As in :class:`_Normalized`."""
        return unpadded(matrices, self.weights)


class _Normalize(torch.autograd.Function):
    """Divide weights by their norms, in a graph that any number of backward passes may use.

    For that nothing goes through ``save_for_backward``, which frees what it holds after the first of them.
    """

    @staticmethod
    def forward(ctx: Any, groups: Sequence[_Normalized], *_weights: Tensor) -> tuple[Tensor, ...]:
        ctx.groups = groups
        ctx.set_materialize_grads(False)
        return tuple(chain.from_iterable(group.values() for group in groups))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        results: list[Tensor | None] = [None]
        for group in ctx.groups:
            first = len(results) - 1
            given = gradients[first : first + len(group.weights)]
            for weight, version, gradient in zip(group.weights, group.versions, given, strict=True):
                if gradient is not None and weight._version != version:
                    raise RuntimeError(
                        f"cached_spectral_norm: a weight of shape {tuple(weight.shape)} was written between a forward "
                        "and its backward pass. Update weights after the context."
                    )
            dense = [g.to_dense() if g is not None and g.is_sparse else g for g in given]
            with _LOCK, full_precision(group.us):
                results += group.gradients(dense)
        return tuple(results)
