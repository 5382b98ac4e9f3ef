"""Priors of the latent vector with a continuum of values: uniform, censored, sparse, on a sphere.

Tested in ``tests/latents/test_priors.py``.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from gan_blocks.latents._draws import Draws
from gan_blocks.latents._rounding import largest_within
from gan_blocks.latents.priors import Prior

__all__ = ["CensoredNormalPrior", "SphericalPrior", "SpikeAndSlabPrior", "UniformPrior"]


@dataclass(frozen=True)
class UniformPrior(Prior):
    r"""Independent components uniform between -1 and 1.

    .. math:: z \sim \mathcal{U}[-1, 1]

    Found in the paper: similar to the normal prior; the other standard choice of earlier work.

    Args:
        dim: Number of components of z, at least 1.

    Raises:
        ValueError: If ``dim`` is not positive.

    References:
        Brock et al. 2018, Appendix E.

    Example:
        >>> UniformPrior(128).support
        (-1.0, 1.0)
    """

    def _sample(self, draws: Draws) -> Tensor:
        return draws.uniform(self.dim).mul_(2).sub_(1).to(draws.dtype)

    @property
    def support(self) -> tuple[float, float]:
        """From -1 to 1."""
        return -1.0, 1.0

    @property
    def mean(self) -> Tensor:
        """Zero for each component, ``(dim,)`` in float64."""
        return self._for_each_component(0)

    @property
    def variance(self) -> Tensor:
        """A third for each component, ``(dim,)`` in float64."""
        return self._for_each_component(1 / 3)


@dataclass(frozen=True)
class CensoredNormalPrior(Prior):
    r"""Independent standard normal components with 0 in place of negative values.

    .. math:: z = \max(t, 0), \qquad t \sim \mathcal{N}(0, I)

    The idea: a feature is there in some images only, and then in varying degrees. Half of the components are 0.

    Found in the paper: one of the two best latents without truncation, 15 to 20% above the normal prior in Inception
    Score, and usually in fewer iterations. It is less amenable to truncation.

    Args:
        dim: Number of components of z, at least 1.

    Raises:
        ValueError: If ``dim`` is not positive.

    References:
        Brock et al. 2018, Appendix E, "Censored Normal".

    Example:
        >>> z = CensoredNormalPrior(1000).sample(4, generator=torch.Generator().manual_seed(0))
        >>> z.min().item(), round((z == 0).float().mean().item(), 1)
        (0.0, 0.5)
    """

    def _sample(self, draws: Draws) -> Tensor:
        return draws.normal(self.dim).clamp_(min=0)

    @property
    def support(self) -> tuple[float, float]:
        """0 and all above."""
        return 0.0, math.inf

    @property
    def mean(self) -> Tensor:
        r""":math:`1 / \sqrt{2 \pi}` for each component, ``(dim,)`` in float64."""
        return self._for_each_component(1 / math.sqrt(2 * math.pi))

    @property
    def variance(self) -> Tensor:
        r""":math:`1/2 - 1/(2 \pi)` for each component, ``(dim,)`` in float64."""
        return self._for_each_component(1 / 2 - 1 / (2 * math.pi))


@dataclass(frozen=True)
class SpikeAndSlabPrior(Prior):
    r"""Independent components that are standard normal or 0 with equal probability.

    .. math:: z = t \circ b, \qquad t \sim \mathcal{N}(0, I), \qquad b_i \in \{0, 1\}

    The idea: continuous and sparse as the censored normal, but of either sign. (Statistics calls a point mass at 0
    beside a wide distribution "spike and slab".)

    Found in the paper: near-identical to the normal prior.

    Args:
        dim: Number of components of z, at least 1.

    Raises:
        ValueError: If ``dim`` is not positive.

    References:
        Brock et al. 2018, Appendix E, "N(0, I) multiplied by Bernoulli {0, 1}".

    Example:
        >>> z = SpikeAndSlabPrior(1000).sample(4, generator=torch.Generator().manual_seed(0))
        >>> bool(z.min() < 0), round((z == 0).float().mean().item(), 1)
        (True, 0.5)
    """

    def _sample(self, draws: Draws) -> Tensor:
        return draws.normal(self.dim) * draws.integers(self.dim, 0, 1)

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
        """A half for each component, ``(dim,)`` in float64."""
        return self._for_each_component(1 / 2)


@dataclass(frozen=True)
class SphericalPrior(Prior):
    r"""Uniform on the sphere of radius :math:`\sqrt{d}` around 0, d being ``dim``: the latents of ProGAN.

    .. math:: z = \sqrt{d}\, t / \lVert t \rVert_2, \qquad t \sim \mathcal{N}(0, I)

    ProGAN normalizes normal latents by their root mean square, as it does the features of a pixel. So this is the
    sphere on which a normal latent of many dimensions nearly lies; its components have mean 0 and variance 1, are
    uncorrelated, but not independent. The unit sphere of other work is this one divided by :math:`\sqrt{d}`.

    Args:
        dim: Number of components of z, at least 1.

    Raises:
        ValueError: If ``dim`` is not positive.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", Appendix A.1. It is none of the latents of Brock et al. 2018.

    Example:
        >>> z = SphericalPrior(512).sample(4)
        >>> bool((z.square().mean(dim=1) - 1).abs().max() < 1e-5)
        True
    """

    def _sample(self, draws: Draws) -> Tensor:
        # normalize() leaves a vector of zeros, which one dimension in float16 does draw, where it is.
        directions = F.normalize(draws.normal(self.dim).to(draws.wide_dtype), dim=1)
        radius = self.support[1]
        bound = largest_within(radius, draws.dtype)
        return directions.mul_(radius).to(draws.dtype).clamp_(-bound, bound)

    @property
    def support(self) -> tuple[float, float]:
        """The radius on both sides of 0."""
        return -math.sqrt(self.dim), math.sqrt(self.dim)

    @property
    def mean(self) -> Tensor:
        """Zero for each component, ``(dim,)`` in float64."""
        return self._for_each_component(0)

    @property
    def variance(self) -> Tensor:
        """One for each component, ``(dim,)`` in float64."""
        return self._for_each_component(1)
