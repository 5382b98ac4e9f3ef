"""How exact a Fréchet distance is: the standard error that the choice of samples gives it.

Tested in ``tests/metrics/test_frechet_error.py``.
"""

import torch
from einops import rearrange
from torch import Tensor

from gan_blocks._checks import bad_kind, bad_value
from gan_blocks._precision import to_float64
from gan_blocks.metrics._samples import check_same_width, check_samples
from gan_blocks.metrics.feature_moments import FeatureMoments

__all__ = ["frechet_standard_error"]


@torch.no_grad()
def frechet_standard_error(
    real_moments: FeatureMoments, fake_moments: FeatureMoments, real_features: Tensor, fake_features: Tensor
) -> float:
    r"""Estimate how much the Fréchet distance of two sets would vary if other samples had been drawn.

    To first order a sample x of the generated set changes the distance by 1 / n of its influence

    .. math:: \varphi(x) = \lVert x - \mu_f \rVert^2 - (x - \mu_f)^\top T (x - \mu_f) + 2 (\mu_f - \mu_r)^\top x,
        \qquad T = \Sigma_f^{-1/2} \big(\Sigma_f^{1/2} \Sigma_r \Sigma_f^{1/2}\big)^{1/2} \Sigma_f^{-1/2}

    but for a constant, where T is the linear map that transports one normal distribution to the other. The standard
    error is the root of the sum of :math:`\operatorname{Var}(\varphi) / n` over both sets, with the roles exchanged for
    real samples. It costs about two Fréchet distances, instead of the hundreds of a bootstrap, and says nothing of
    the bias: with few samples the distance is larger than it would be of many, the more the more features there are.

    Args:
        real_moments: Mean and covariance of the real features, with their number.
        fake_moments: Those of the generated ones.
        real_features: All of these features or, where there are too many for the memory, some of them.
        fake_features: The same of the generated ones.

    Returns:
        The standard error, in squared units of the features.

    Shape:
        - real_features: ``(samples, features)``, at least two samples
        - fake_features: ``(samples', features)``, at least two samples

    Raises:
        ValueError: If there are fewer than two samples, the numbers of features differ, or values are not finite.
        TypeError: If features are not floating point.

    References:
        van der Vaart 1998, "Asymptotic Statistics", chapter 20 (the delta method); Dowson and Landau 1982.

    Example:
        >>> from gan_blocks import FeatureMoments
        >>> rng = torch.Generator().manual_seed(0)
        >>> sets = [torch.randn(1000, 4, generator=rng) + shift for shift in (0, 1)]
        >>> moments = [FeatureMoments(4), FeatureMoments(4)]
        >>> for pooled, features in zip(moments, sets):
        ...     pooled.update(features)
        >>> round(frechet_standard_error(*moments, *sets), 2)  # the distance is 4 and a little
        0.18
    """
    owner = "frechet_standard_error"
    for name, features in (("real_features", real_features), ("fake_features", fake_features)):
        check_samples(owner, name, features, 2, "at least two samples")
    check_same_width(owner, real_features, fake_features)
    width = real_features.shape[1]
    for name, moments in (("real_moments", real_moments), ("fake_moments", fake_moments)):
        if not isinstance(moments, FeatureMoments):
            raise bad_kind(owner, name, "FeatureMoments", moments)
        if moments.num_features != width:
            raise bad_value(owner, name, f"moments of {width} features, as the features have", moments)
        if moments.count < 2:
            raise bad_value(owner, name, "moments of at least two samples", moments)
    root, inverse = _powers(fake_moments.covariance, 0.5, -0.5)
    middle, middle_inverse = _powers(root @ real_moments.covariance @ root, 0.5, -0.5)
    shift = fake_moments.mean - real_moments.mean
    of_fake = _influence(fake_features, fake_moments.mean, inverse @ middle @ inverse, shift)
    of_real = _influence(real_features, real_moments.mean, root @ middle_inverse @ root, -shift)
    variance = of_fake.var() / fake_moments.count + of_real.var() / real_moments.count
    return float(variance.sqrt())


def _powers(matrix: Tensor, *exponents: float) -> list[Tensor]:
    """Powers of a symmetric matrix without negative eigenvalues; those that are but rounding are left out."""
    values, vectors = _eigenpairs(matrix)
    kept = values > 1e-10 * values[-1].clamp(min=0)
    values, vectors = values[kept], vectors[:, kept]
    return [(vectors * values.pow(exponent)) @ vectors.mT for exponent in exponents]


def _eigenpairs(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in ascending order, and eigenvectors as columns."""
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        # LAPACK may not converge where most eigenvalues are zero, as of few samples of many features. Without negative
        # ones they are the singular values.
        vectors, values, _ = torch.linalg.svd(matrix)
        values, vectors = values.flip(0), vectors.flip(1)
    return values, vectors


def _influence(features: Tensor, mean: Tensor, transport: Tensor, shift: Tensor) -> Tensor:
    """What each sample adds to the distance, up to a constant and the count."""
    x = to_float64(features) - rearrange(mean.to(features.device), "feature -> 1 feature")
    influence: Tensor = x.square().sum(dim=1) - ((x @ transport) * x).sum(dim=1) + 2 * (x @ shift)
    return influence
