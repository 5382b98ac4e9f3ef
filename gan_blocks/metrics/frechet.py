"""The Fréchet distance between two sets of features, as if each were normally distributed.

Tested in ``tests/metrics/test_frechet.py``.
"""

import torch
from torch import Tensor

from gan_blocks._checks import bad_shape, bad_value
from gan_blocks.metrics._samples import check_samples
from gan_blocks.metrics.feature_moments import FeatureMoments, centered, triangular_root

__all__ = ["frechet_distance"]

Features = Tensor | FeatureMoments


@torch.no_grad()
def frechet_distance(real_features: Tensor | FeatureMoments, fake_features: Tensor | FeatureMoments) -> float:
    r"""Compare two sets of features by only their means and covariances.

    .. math:: d^2 = \|\mu_r - \mu_f\|^2 + \operatorname{tr}\big(\Sigma_r + \Sigma_f
        - 2\,(\Sigma_r \Sigma_f)^{1/2}\big)

    It is the squared 2-Wasserstein distance of the two normal distributions that have these moments. Covariances are
    divided by the count less one. With features of the Inception network it is the FID; a score of other features
    is none, and should bear their name. Compare scores of equal features and equal counts only: with fewer samples
    all are larger, most of all where there are fewer samples than features.

    No matrix root is taken, which for covariances that lack rank gives complex or wrong numbers: with
    :math:`\Sigma = R^\top R` by a QR decomposition of the centered features, the trace of the root is the sum of the
    singular values of :math:`R_r R_f^\top`. All of it is computed in float64.

    Args:
        real_features: Features of real images, one row each, of any floating dtype; or their moments, pooled over
            batches where there are too many to be in memory.
        fake_features: Features of generated images, or their moments; their number may differ.

    Returns:
        The distance, at least 0, in squared units of the features.

    Shape:
        - real_features: ``(samples, features)``, at least two samples
        - fake_features: ``(samples', features)``, at least two samples

    Raises:
        ValueError: If a set has another shape, fewer than two samples or values that are not finite.
        TypeError: If a set is neither a tensor nor moments, or not floating point.

    References:
        Dowson and Landau 1982, "The Fréchet Distance between Multivariate Normal Distributions"; Heusel et al. 2017,
        "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", equation 6.

    Example:
        >>> square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> round(frechet_distance(square, square + 3), 6)  # only the mean moves
        18.0
    """
    real_mean, real_root = _mean_and_root("real_features", real_features)
    fake_mean, fake_root = _mean_and_root("fake_features", fake_features)
    _check_width(fake_features, len(fake_mean), len(real_mean))
    fake_mean, fake_root = fake_mean.to(real_mean.device), fake_root.to(real_mean.device)  # moments may be cached
    means = (real_mean - fake_mean).square().sum()
    traces = real_root.square().sum() + fake_root.square().sum()
    root_of_product = torch.linalg.svdvals(real_root @ fake_root.mT).sum()
    return float((means + traces - 2 * root_of_product).clamp(min=0))  # rounding can take equal sets below


def _mean_and_root(name: str, features: Features) -> tuple[Tensor, Tensor]:
    """The mean, and a matrix R of which the covariance is the product of its transpose and itself."""
    if isinstance(features, FeatureMoments):
        if features.count < 2:
            raise bad_value("frechet_distance", name, "moments of at least two samples", features)
        return features.mean, features.covariance_root
    check_samples("frechet_distance", name, features, 2, "at least two samples")
    mean, rows = centered(features)
    return mean, triangular_root(rows, len(rows))


def _check_width(fake_features: Features, width: int, wanted: int) -> None:
    if width == wanted:
        return
    if isinstance(fake_features, FeatureMoments):
        raise bad_value("frechet_distance", "fake_features", f"moments of {wanted} features", fake_features)
    raise bad_shape("frechet_distance", "fake_features", f"(samples, {wanted})", fake_features)
