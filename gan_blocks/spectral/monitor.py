"""The largest singular values of every layer of a model, cheap enough to follow while it trains.

Tested in ``tests/spectral/test_monitor.py``.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from gan_blocks._checks import bad_value, check_module, check_positive, check_sizes
from gan_blocks._precision import to_float64, wide_dtype
from gan_blocks.spectral.clamping import SigmaClamp
from gan_blocks.spectral.parametrized import chains_of, sources_of
from gan_blocks.spectral.registering import default_dim
from gan_blocks.spectral.singular_values.arnoldi import SingularTriplets, top_singular_triplets

__all__ = ["LayerSpectrum", "SpectrumMonitor"]

_OWNER = "SpectrumMonitor"


class LayerSpectrum(NamedTuple):
    """What a :class:`SpectrumMonitor` measures of one weight, after its clamps and before any normalization of it."""

    depth: int
    """Position among the weights of the model, from 0, in the order in which its modules are registered."""
    sigmas: Tensor
    """The min(k, out, rest) largest singular values, largest first, in float32 or wider."""
    error_bound: Tensor
    """A singular value lies within this of each, as in :func:`top_singular_triplets`."""
    frobenius_norm: Tensor
    """The root of the sum of the squares of all entries, ``()``."""


class SpectrumMonitor:
    r"""Measure the k largest singular values and the Frobenius norm of every weight matrix of a model.

    Looking for what foretells collapse, the paper found the three largest singular values
    :math:`\sigma_0, \sigma_1, \sigma_2` of each weight to be the most informative: in G a few layers grow until they
    explode, in D they are noisy; a high :math:`\sigma_0 / \sigma_1` marks a single runaway direction. The Frobenius
    norm :math:`\|W\|_F` beside them tells that from a growth of the whole weight.

    Measured is every parameter with two dimensions or more, read as (out, rest); where parametrizations make a tensor
    (spectral norm, equalized learning rates), what they start from. Where :func:`clamp_sigma` was registered first,
    it is what the clamp makes of that, so that the curves show its effect. Each call starts from the vectors of the
    previous one, and layers of equal shape share their work. The model is not changed, nor is its training mode.

    Differences from the paper: it does not say how accurately it computes; ``tol`` is 1e-3 here, which no curve shows.

    Args:
        model: Any module. Its weights are looked up at each measurement, so it may grow.
        k: How many singular values, at least 1; layers with a smaller side have fewer.
        tol: The error aimed at, relative to the largest singular value of each weight; greater than 0.

    Raises:
        ValueError: If k or tol is outside its range.

    References:
        Brock et al. 2018, section 4.1, Figure 3 and Appendix F.

    Example:
        >>> layer = torch.nn.Linear(2, 2)
        >>> _ = torch.nn.init.eye_(layer.weight)
        >>> monitor = SpectrumMonitor(torch.nn.Sequential(layer, torch.nn.ReLU(), torch.nn.Linear(2, 1)))
        >>> {name: (spectrum.depth, len(spectrum.sigmas)) for name, spectrum in monitor.measure().items()}
        {'0': (0, 2), '2': (1, 1)}
        >>> [round(sigma, 3) for sigma in monitor.measure()["0"].sigmas.tolist()]
        [1.0, 1.0]
    """

    def __init__(self, model: nn.Module, k: int = 3, *, tol: float = 1e-3) -> None:
        check_module(_OWNER, "model", model)
        check_sizes(_OWNER, k=k)
        check_positive(_OWNER, tol=tol)
        self.model = model
        self.k = k
        self.tol = tol
        self._previous: dict[str, SingularTriplets] = {}

    def __repr__(self) -> str:
        return f"SpectrumMonitor({type(self.model).__name__}, k={self.k}, tol={self.tol})"

    @torch.no_grad()
    def measure(self) -> dict[str, LayerSpectrum]:
        """Measure all weights as they are now.

        Returns:
            The spectra by the qualified names of the layers, in order of depth. A tensor that is not called
            ``weight`` has its own name appended.

        Raises:
            ValueError: If the model has no weight matrix, or one has NaN or infinite entries.
        """
        weights = dict(_weights(self.model))
        if not weights:
            raise bad_value(_OWNER, "model", "a module with weight matrices", type(self.model).__name__)
        norms = {name: _frobenius_norm(name, weight) for name, weight in weights.items()}
        groups = defaultdict(list)
        for name, weight in weights.items():
            groups[weight.shape, weight.dtype, weight.device].append(name)
        found: dict[str, SingularTriplets] = {}
        for names in groups.values():
            found |= self._triplets(names, [weights[name] for name in names])
        self._previous = found
        return {
            name: LayerSpectrum(depth, found[name].s, found[name].error_bound, norms[name])
            for depth, name in enumerate(weights)
        }

    def _triplets(self, names: list[str], weights: list[Tensor]) -> dict[str, SingularTriplets]:
        """Find the triplets of equally shaped weights, from their earlier ones if all of them still fit."""
        out, rest = len(weights[0]), weights[0][0].numel()
        earlier = [self._previous[name] for name in names if name in self._previous]
        fits = all((before.u.shape[1], before.v.shape[1]) == (out, rest) for before in earlier)
        start = None
        if fits and len(earlier) == len(names):
            start = SingularTriplets(*(torch.stack(field) for field in zip(*earlier, strict=True)))
        found = top_singular_triplets(weights, min(self.k, out, rest), tol=self.tol, start=start)
        return {name: SingularTriplets(*(field[i] for field in found)) for i, name in enumerate(names)}


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the weight matrices by layer, "out" first, a shared one only once."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, source, clamp in _own_tensors(module):
            if source.dim() >= 2 and source.numel() > 0 and id(source) not in seen:
                seen.add(id(source))
                layer = prefix if name == "weight" and prefix else f"{prefix}.{name}".lstrip(".")
                weight: Tensor = source.detach() if clamp is None else clamp(source.detach())
                yield layer, weight.transpose(0, default_dim(module))


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor, SigmaClamp | None]]:
    """Yield what an optimizer moves in one layer, each with the clamp that acts on it before anything else."""
    if isinstance(module, ParametrizationList):
        return  # belongs to the layer that it parametrizes
    for name, parameter in module.named_parameters(recurse=False):
        yield name, parameter, None
    for name, chain in chains_of(module).items():
        sources, first = sources_of(chain, 0), chain[0]
        clamp = first if isinstance(first, SigmaClamp) else None
        for index, source in enumerate(sources):
            yield name if len(sources) == 1 else f"{name}.original{index}", source, clamp


def _frobenius_norm(name: str, weight: Tensor) -> Tensor:
    norm = _norm(weight, wide_dtype(weight))
    if not weight.is_meta and not norm.isfinite():
        strange = weight[~weight.isfinite()]
        if strange.numel() > 0:
            raise bad_value(_OWNER, f"weight of {name}", "finite", strange[0].item())
        norm = _norm(to_float64(weight), torch.float64).to(norm)
    return norm


def _norm(weight: Tensor, dtype: torch.dtype) -> Tensor:
    # Summed at once in float32, the squares of a weight of 20 million entries would come out 0.1 % short.
    rows = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())), dtype=dtype)
    norm: Tensor = torch.linalg.vector_norm(rows)
    return norm
