"""Prior distributions of the latent vector, one class each, behind one interface.

Tested in ``tests/latents/test_priors.py``.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_blocks._checks import check_positive

__all__ = ["NormalPrior", "Prior"]


@dataclass(frozen=True)
class Prior(ABC):
    """What a generator's latent vector is drawn from: independent samples of ``dim`` components.

    Args:
        dim: Number of components of z, at least 1.

    Raises:
        ValueError: If ``dim`` is not positive.

    References:
        Brock et al. 2018, Appendix E.
    """

    dim: int

    def __post_init__(self) -> None:
        check_positive(type(self).__name__, dim=self.dim)

    @abstractmethod
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
            batch_size: Number of vectors.
            generator: Source of the draws, on ``device``; None takes torch's global one.
            device: Device of the result.
            dtype: Floating dtype of the result; None takes torch's default.
        """

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


@dataclass(frozen=True)
class NormalPrior(Prior):
    r"""Independent normal components, the prior of the paper's main experiments.

    .. math:: z \sim \mathcal{N}(0, s^2 I)

    Differences from the paper: Appendix E writes :math:`\mathcal{N}(0, \sigma I)`, in which :math:`\sigma` is a
    variance. ``std`` is the standard deviation :math:`s`: for the paper's :math:`\sigma` pass its square root.

    Args:
        dim: Number of components of z, at least 1.
        std: Standard deviation s of each component, greater than 0.

    Raises:
        ValueError: If ``dim`` or ``std`` is not positive.

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

    def sample(
        self,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draw ``(batch_size, dim)`` latent vectors; see :meth:`Prior.sample`."""
        z = torch.randn(batch_size, self.dim, generator=generator, device=device, dtype=dtype)
        return z if self.std == 1 else z.mul_(self.std)

    @property
    def support(self) -> tuple[float, float]:
        """The real line."""
        return -math.inf, math.inf

    @property
    def mean(self) -> Tensor:
        """Zero for each component, ``(dim,)`` in float64."""
        return torch.zeros(self.dim, dtype=torch.float64)

    @property
    def variance(self) -> Tensor:
        """The square of ``std`` for each component, ``(dim,)`` in float64."""
        return torch.full((self.dim,), self.std**2, dtype=torch.float64)
