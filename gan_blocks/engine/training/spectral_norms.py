"""The spectral norms of both players during an update: none looks at its weight more often than it has to.

A network keeps the layers that it has at its first update, so they are looked up once.

Tested in ``tests/engine/training/test_spectral_norms.py``.
"""

import contextlib
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from gan_blocks import advance_power_iteration, cached_spectral_norm, frozen_power_iteration
from gan_blocks.engine.recipe.state import TrainingState

__all__ = ["advance_norms", "cached_weights", "known_weights"]


class _Norms:
    """The parametrizations of a network, and the versions of their tensors when the vectors last advanced."""

    def __init__(self, network: nn.Module) -> None:
        self.chains = nn.ModuleList(part for part in network.modules() if isinstance(part, ParametrizationList))
        self.cache = cached_spectral_norm(self.chains)
        self.parameters = [part._parameters for part in self.chains.modules() if part._parameters]
        self.advanced_at: list[int] | None = None

    def versions(self) -> list[int]:
        return [each._version for part in self.parameters for each in part.values() if each is not None]


_NORMS = WeakKeyDictionary[nn.Module, _Norms]()


def advance_norms(network: nn.Module) -> None:
    """Advance the singular vectors of a network that has just been updated."""
    norms = _norms_of(network)
    advance_power_iteration(norms.chains)
    norms.advanced_at = norms.versions()


@contextlib.contextmanager
def known_weights(state: TrainingState) -> Iterator[None]:
    """After an update here no spectral norm has to look whether its weight is still the same, unless somebody wrote."""
    with contextlib.ExitStack() as held:
        for norms in map(_norms_of, (state.discriminator, state.generator)):
            if norms.advanced_at == norms.versions():
                held.enter_context(frozen_power_iteration(norms.chains))
        yield


@contextlib.contextmanager
def cached_weights(state: TrainingState) -> Iterator[None]:
    """Between two updates each normalized weight is computed once, however many forward passes read it."""
    with _norms_of(state.discriminator).cache, _norms_of(state.generator).cache:
        yield


def _norms_of(network: nn.Module) -> _Norms:
    if network not in _NORMS:
        _NORMS[network] = _Norms(network)
    return _NORMS[network]
