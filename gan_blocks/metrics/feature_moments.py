"""Mean and covariance of features that come in batches, so that they need not be in memory together.

Tested in ``tests/metrics/test_feature_moments.py``.
"""

import torch
from einops import rearrange, reduce
from torch import Tensor

from gan_blocks._checks import bad_kind, bad_shape, bad_value, check_sizes
from gan_blocks._precision import to_float64
from gan_blocks.metrics._samples import check_samples

__all__ = ["FeatureMoments", "centered", "triangular_root"]


class FeatureMoments:
    r"""Pool the mean and the covariance of features over batches, for :func:`frechet_distance`.

    With the mean :math:`\mu_b`, the count :math:`n_b` and the centered squares :math:`S_b` of each of two parts,

    .. math:: \mu = \mu_1 + \frac{n_2}{n} \delta, \qquad S = S_1 + S_2 + \frac{n_1 n_2}{n} \delta \delta^\top,
        \qquad \delta = \mu_2 - \mu_1, \quad n = n_1 + n_2

    are those of both together, so that a large mean costs no digits. What is kept is a matrix R with
    :math:`R^\top R = S`, and not S, whose root would lose half the digits where features lack rank. It has no more
    than twice as many rows as there are features: 26 MB for 1,280 of them, in float64, on the device of the latest
    features. Parts of other processes or machines are pooled by :meth:`merge`.

    Args:
        num_features: Number of features of a sample, at least 1.

    Attributes:
        num_features: The argument.
        count: Number of samples so far.

    Raises:
        ValueError: If ``num_features`` is less than 1, or what comes has another width, no sample or values that are
            not finite.
        TypeError: If ``num_features`` is not whole, or what comes is of another kind.
        RuntimeError: If the mean is read of no samples, or the covariance of fewer than two.

    References:
        Chan et al. 1983, "Algorithms for Computing the Sample Variance"; Golub and Van Loan 2013, "Matrix
        Computations", section 6.5 (updating a QR factorization).

    Example:
        >>> moments = FeatureMoments(2)
        >>> for batch in (torch.tensor([[0.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 1.0]])):
        ...     moments.update(batch)
        >>> moments.count, moments.mean.tolist(), moments.covariance.diagonal().round(decimals=6).tolist()
        (3, [1.0, 1.0], [3.0, 1.0])
    """

    def __init__(self, num_features: int) -> None:
        check_sizes("FeatureMoments", num_features=num_features)
        self.num_features = num_features
        self.count = 0
        self._mean = torch.zeros(num_features, dtype=torch.float64)
        self._rows = torch.zeros(0, num_features, dtype=torch.float64)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Take a batch of features, ``(samples, num_features)``, of any floating dtype; no gradient is recorded."""
        check_samples("FeatureMoments", "features", features, 1, "at least one sample")
        if features.shape[1] != self.num_features:
            raise bad_shape("FeatureMoments", "features", f"(samples, {self.num_features})", features)
        self._pool(len(features), *centered(features))

    @torch.no_grad()
    def merge(self, other: "FeatureMoments") -> None:
        """Take all that another one has taken, which stays as it is."""
        if not isinstance(other, FeatureMoments):
            raise bad_kind("FeatureMoments", "other", "a FeatureMoments", other)
        if other.num_features != self.num_features:
            raise bad_value("FeatureMoments", "other", f"moments of {self.num_features} features", other)
        if other.count > 0:
            self._pool(other.count, other._mean, other._rows)

    @property
    def mean(self) -> Tensor:
        """The mean of every feature, float64, ``(num_features,)``."""
        self._require(1, "mean")
        return self._mean.clone()

    @property
    def covariance(self) -> Tensor:
        """The covariance divided by the count less one, float64, ``(num_features, num_features)``."""
        self._require(2, "covariance")
        return self._rows.mT @ self._rows / (self.count - 1)

    @property
    def covariance_root(self) -> Tensor:
        """A matrix of which the covariance is its transpose times itself, float64, ``(rows, num_features)``."""
        self._require(2, "covariance_root")
        return triangular_root(self._rows, self.count)

    def __repr__(self) -> str:
        return f"FeatureMoments(num_features={self.num_features}, count={self.count})"

    def _pool(self, count: int, mean: Tensor, rows: Tensor) -> None:
        own_mean, own_rows = self._mean.to(mean.device), self._rows.to(mean.device)
        share = count / (self.count + count)
        difference = mean - own_mean
        if self.count > 0:
            between = rearrange(difference * (self.count * share) ** 0.5, "feature -> 1 feature")
            rows = torch.cat([own_rows, rows, between])
        if len(rows) > 2 * self.num_features:  # seldom, so that small batches cost little
            rows = torch.linalg.qr(rows, mode="r").R
        self.count += count
        self._mean, self._rows = own_mean + difference * share, rows

    def _require(self, least: int, what: str) -> None:
        if self.count < least:
            needed = "a sample" if least == 1 else "two samples"
            raise RuntimeError(f"FeatureMoments: `{what}` needs {needed}, but got count={self.count}.")


def centered(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and features less their mean, in float64."""
    wide = to_float64(features)
    mean = reduce(wide, "sample feature -> feature", "mean")
    return mean, wide - rearrange(mean, "feature -> 1 feature")


def triangular_root(rows: Tensor, count: int) -> Tensor:
    """A root of the covariance of so many samples, from rows whose transpose times themselves are their squares."""
    root: Tensor = torch.linalg.qr(rows, mode="r").R / (count - 1) ** 0.5
    return root
