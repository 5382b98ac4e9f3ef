"""The Fréchet distance between two sets of features, as if each were normally distributed.

Tested in ``tests/metrics/test_frechet.py``.
"""

import torch
from einops import rearrange, reduce
from torch import Tensor

from gan_blocks._checks import bad_dtype, bad_shape, bad_value
from gan_blocks._precision import to_float64

__all__ = ["frechet_distance"]


@torch.no_grad()
def frechet_distance(real_features: Tensor, fake_features: Tensor) -> float:
    r"""Compare two sets of features by their means and covariances alone.

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
        real_features: Features of real images, one row each, of any floating dtype.
        fake_features: Features of generated images; their number may differ.

    Returns:
        The distance, at least 0 but for rounding, in squared units of the features.

    Shape:
        - real_features: ``(samples, features)``, at least two samples
        - fake_features: ``(samples', features)``, at least two samples

    Raises:
        ValueError: If a set has another shape, fewer than two samples or values that are not finite.
        TypeError: If a set is not floating point.

    References:
        Dowson and Landau 1982, "The Fréchet Distance between Multivariate Normal Distributions"; Heusel et al. 2017,
        "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", equation 6.

    Example:
        >>> square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> round(frechet_distance(square, square + 3), 6)  # only the mean moves
        18.0
    """
    _check("real_features", real_features)
    _check("fake_features", fake_features)
    if fake_features.shape[1] != real_features.shape[1]:
        pattern = f"(samples, {real_features.shape[1]})"
        raise bad_shape("frechet_distance", "fake_features", pattern, fake_features)
    (real_mean, real_root), (fake_mean, fake_root) = (_moments(each) for each in (real_features, fake_features))
    means = (real_mean - fake_mean).square().sum()
    traces = real_root.square().sum() + fake_root.square().sum()
    root_of_product = torch.linalg.svdvals(real_root @ fake_root.mT).sum()
    return float(means + traces - 2 * root_of_product)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and a matrix R of which the covariance is the product of its transpose and itself."""
    wide = to_float64(features)
    mean = reduce(wide, "sample feature -> feature", "mean")
    centered = wide - rearrange(mean, "feature -> 1 feature")
    return mean, torch.linalg.qr(centered, mode="r").R / (len(wide) - 1) ** 0.5


def _check(name: str, features: Tensor) -> None:
    if not features.is_floating_point():
        raise bad_dtype("frechet_distance", name, "floating point", features)
    if features.dim() != 2 or len(features) < 2 or features.shape[1] == 0:
        raise bad_shape("frechet_distance", name, "(samples, features) with at least two samples", features)
    if not features.isfinite().all():
        bad = int((~features.isfinite()).sum())
        raise bad_value("frechet_distance", name, "finite", f"{bad} of {features.numel()} values that are not")
