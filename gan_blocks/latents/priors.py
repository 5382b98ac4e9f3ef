"""What every prior distribution of the latent vector offers, and the normal one.

The other priors are in the modules beside this one. Tested in ``tests/latents/test_priors.py``.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_blocks._checks import bad_value, check_at_least_0, check_finite, check_positive, check_sizes, check_whole
from gan_blocks.latents._draws import Draws

__all__ = ["NormalPrior", "Prior"]


_LARGEST = 2**63  # what torch counts elements with


@dataclass(frozen=True)
class Prior(ABC):
    """What a generator's latent vector is drawn from: independent samples of ``dim`` components.

    A GAN may draw its latents from any distribution: nothing has to be inverted or differentiated. Appendix E tried
    ten; each class says what was found. A prior is a value: equal arguments make equal priors, and none ever changes.
    One of your own is a subclass with ``_sample``, ``support``, ``mean`` and ``variance``.

    Args:
        dim: Number of components of z, at least 1.

    Raises:
        TypeError: If ``dim`` is not a whole number.
        ValueError: If ``dim`` is not positive, or no tensor has so many elements.

    References:
        Brock et al. 2018, Appendix E.
    """

    dim: int

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_sizes(owner, dim=self.dim)
        if self.dim >= _LARGEST:
            raise bad_value(owner, "dim", "less than 2**63", self.dim)

    def sample(
        self,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draw ``(batch_size, dim)`` latent vectors.

        A sample is a function of the generator's state and of the whole batch: draw the batch at once and slice it.

        Args:
            batch_size: Number of vectors, at least 0.
            generator: Source of the draws, on ``device``; None takes torch's global one.
            device: Device of the result.
            dtype: Floating dtype of the result; None takes torch's default.

        Raises:
            TypeError: If ``batch_size`` is not a whole number.
            ValueError: If ``dtype`` is not a floating one, or ``batch_size`` is negative.
        """
        check_whole(type(self).__name__, batch_size=batch_size)
        check_at_least_0(type(self).__name__, batch_size=batch_size)
        dtype = dtype or torch.get_default_dtype()
        if not dtype.is_floating_point:
            raise bad_value(type(self).__name__, "dtype", "a floating dtype", dtype)
        return self._sample(Draws(batch_size, generator, device, dtype))

    def at(self, step: int) -> "Prior":  # noqa: ARG002
        """What training draws from at a step: the prior itself, unless it changes over training.

        Args:
            step: The training step.
        """
        return self

    @abstractmethod
    def _sample(self, draws: Draws) -> Tensor:
        """``(draws.batch_size, dim)`` latent vectors of ``draws.dtype``, made of nothing random but ``draws``."""

    @property
    @abstractmethod
    def support(self) -> tuple[float, float]:
        """The smallest interval ``(low, high)`` that holds every component, ends included where finite."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Expectation of each component, ``(dim,)`` in float64."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Variance of each component, ``(dim,)`` in float64."""

    def _for_each_component(self, value: float) -> Tensor:
        return torch.full((self.dim,), value, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class NormalPrior(Prior):
    r"""Independent normal components, the prior of the paper's main experiments.

    .. math:: z \sim \mathcal{N}(0, s^2 I)

    The paper prefers it to the latents that scored better because it is the one to truncate: see
    :func:`truncated_prior`.

    Differences from the paper: Appendix E writes :math:`\mathcal{N}(0, \sigma I)`, in which :math:`\sigma` is a
    variance. ``std`` is the standard deviation :math:`s`: for the paper's :math:`\sigma` pass its square root.

    Args:
        dim: Number of components of z, at least 1.
        std: Standard deviation s of each component, greater than 0 and finite.

    Raises:
        ValueError: If ``dim`` or ``std`` is not positive and finite.

    References:
        Brock et al. 2018, Appendix E.

    Example:
        >>> prior = NormalPrior(128)
        >>> prior.sample(4, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([4, 128])
        >>> prior.support
        (-inf, inf)
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("NormalPrior", std=self.std)
        check_finite("NormalPrior", std=self.std)

    def _sample(self, draws: Draws) -> Tensor:
        z = draws.normal(self.dim)
        return z if self.std == 1 else z.mul_(self.std)

    @property
    def support(self) -> tuple[float, float]:
        """The real line."""
        return -math.inf, math.inf

    @property
    def mean(self) -> Tensor:
        """Zero for each component, ``(dim,)`` in float64."""
        return self._for_each_component(0)

    @property
    def variance(self) -> Tensor:
        """The square of ``std`` for each component, ``(dim,)`` in float64."""
        return self._for_each_component(self.std**2)
