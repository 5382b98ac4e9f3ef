import pytest
import torch

from gan_blocks import FeatureMoments, frechet_distance, frechet_standard_error


def moments_of(features: torch.Tensor) -> FeatureMoments:
    moments = FeatureMoments(features.shape[1])
    moments.update(features)
    return moments


def error_of(real: torch.Tensor, fake: torch.Tensor) -> float:
    return frechet_standard_error(moments_of(real), moments_of(fake), real, fake)


def drawn(count: int, rng: torch.Generator, *, fake: bool) -> torch.Tensor:
    """Features that are far from normal, with a mean and a covariance of their own."""
    turn = torch.randn(6, 6, generator=torch.Generator().manual_seed(3 + fake))
    return torch.rand(count, 6, generator=rng).pow(3) @ turn + fake


def test_is_the_scatter_of_distances_of_other_samples(rng: torch.Generator):
    """A simulation with 300 pairs, whose own standard deviation is exact to 4 %."""
    pairs = [(drawn(400, rng, fake=False), drawn(200, rng, fake=True)) for _ in range(300)]
    scatter = torch.tensor([frechet_distance(*pair) for pair in pairs], dtype=torch.float64).std().item()
    estimated = sum(error_of(*pair) for pair in pairs[:20]) / 20
    assert estimated == pytest.approx(scatter, rel=0.12)


def test_a_part_of_the_features_suffices(rng: torch.Generator):
    real, fake = drawn(4000, rng, fake=False), drawn(3000, rng, fake=True)
    part = frechet_standard_error(moments_of(real), moments_of(fake), real[:1000], fake[:1000])
    assert part == pytest.approx(error_of(real, fake), rel=0.1)


def test_exchanging_the_sets_changes_nothing(rng: torch.Generator):
    real, fake = drawn(100, rng, fake=False), drawn(80, rng, fake=True)
    assert error_of(real, fake) == pytest.approx(error_of(fake, real), rel=1e-9)


def test_is_finite_where_features_lack_rank(rng: torch.Generator):
    real, fake = (torch.randn(20, 3, generator=rng) @ torch.ones(3, 50) for _ in range(2))
    real[:, 7] = fake[:, 7] = 0
    assert 0 < error_of(real, fake) < 1e6
    assert error_of(torch.zeros(5, 3), torch.zeros(5, 3)) == 0


def test_where_lapack_does_not_converge_it_is_the_same(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    real, fake = (torch.randn(5, 8, generator=rng, dtype=torch.float64) for _ in range(2))
    expected = error_of(real, fake)

    def diverges(_matrix: torch.Tensor) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", diverges)
    assert error_of(real, fake) == pytest.approx(expected, rel=1e-9)


def test_rejects_moments_of_other_features():
    features = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"^frechet_standard_error: `real_moments` must be moments of 2 features"):
        frechet_standard_error(FeatureMoments(4), FeatureMoments(4), features, features)
    with pytest.raises(TypeError, match=r"^frechet_standard_error: `real_moments` must be FeatureMoments, but got"):
        frechet_standard_error(features, features, features, features)
    with pytest.raises(ValueError, match=r"`real_moments` must be moments of at least two samples"):
        frechet_standard_error(FeatureMoments(2), FeatureMoments(2), features, features)
