import re

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_blocks import frechet_distance
from tests.drawn import draw
from tests.reference import feature_metrics as reference


def by_matrix_root(real: Tensor, fake: Tensor) -> float:
    """The formula with scipy's root of the product."""
    means = real.mean(0) - fake.mean(0)
    covariances = [np.atleast_2d(np.cov(features.numpy(), rowvar=False)) for features in (real, fake)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    return float(means @ means) + float(np.trace(covariances[0] + covariances[1] - 2 * root).real)


def standardized(count: int, dim: int, seed: int) -> Tensor:
    """Samples whose mean is 0 and whose covariance is the identity, exactly."""
    x = draw(count, dim, seed=seed)
    x = x - x.mean(0)
    return torch.linalg.qr(x).Q * (count - 1) ** 0.5


@given(dim=st.integers(1, 6), more=st.integers(2, 20), seed=st.integers(0, 99))
def test_equals_the_formula_with_a_matrix_root(dim: int, more: int, seed: int):
    real = draw(dim + more, dim, seed=seed) @ draw(dim, dim, seed=seed + 1)
    fake = draw(dim + 2 * more, dim, seed=seed + 2) @ draw(dim, dim, seed=seed + 3) + draw(dim, seed=seed + 4)
    assert frechet_distance(real, fake) == pytest.approx(by_matrix_root(real, fake), rel=1e-6, abs=1e-6)


def test_equals_the_closed_form_of_normal_distributions_with_the_same_axes():
    x, rotation = standardized(50, 4, seed=0), torch.linalg.qr(draw(4, 4, seed=1)).Q
    one, other = torch.tensor([1.0, 2.0, 0.5, 0.0]).double(), torch.tensor([3.0, 0.1, 0.5, 2.0]).double()
    shift = torch.tensor([1.0, 0.0, -2.0, 0.5]).double()
    distance = frechet_distance((x * one) @ rotation, (standardized(30, 4, seed=2) * other + shift) @ rotation)
    wanted = sum((a - b) ** 2 for a, b in zip(one.tolist(), other.tolist(), strict=True)) + 1 + 4 + 0.25
    assert distance == pytest.approx(wanted, rel=1e-10)


def test_covariances_of_the_same_samples_in_other_units_are_those_units_apart():
    x = draw(40, 3, seed=3)
    variance = x.var(dim=0).sum().item()
    mean = x.mean(0).square().sum().item()
    assert frechet_distance(x, 3 * x) == pytest.approx(4 * (variance + mean), rel=1e-10)


def test_fewer_samples_than_features_have_the_limit_of_the_full_rank():
    """A little noise in all directions makes the covariances regular and moves the distance a little."""
    real, fake = draw(5, 8, seed=0), draw(6, 8, seed=1)
    repeated = [features.repeat(400, 1) for features in (real, fake)]
    noisy = [features + 1e-4 * draw(*features.shape, seed=9 + number) for number, features in enumerate(repeated)]
    scale = [(len(features) * 400 - 1) / (len(features) - 1) / 400 for features in (real, fake)]
    # The same samples many times have a slightly smaller covariance: scale them up around their mean.
    same = [
        features.mean(0) + (copies - features.mean(0)) * factor**0.5
        for features, copies, factor in zip((real, fake), noisy, scale, strict=True)
    ]
    assert frechet_distance(real, fake) == pytest.approx(by_matrix_root(*same), rel=1e-3)


@given(count=st.integers(2, 12), dim=st.integers(1, 5), seed=st.integers(0, 99))
def test_is_symmetric_and_zero_for_the_same_moments(count: int, dim: int, seed: int):
    real, fake = draw(count, dim, seed=seed), draw(count + 3, dim, seed=seed + 1)
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), rel=1e-9, abs=1e-9)
    assert frechet_distance(real, real.flip(0)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(real, fake) > 0


def test_computes_in_float64_whatever_it_is_given():
    real, fake = draw(30, 3, seed=0) + 1000, draw(30, 3, seed=1) + 1000
    small = [features.float() for features in (real, fake)]
    assert frechet_distance(*small) == pytest.approx(by_matrix_root(*(f.double() for f in small)), rel=1e-6)


@pytest.mark.parametrize("name", ["real_features", "fake_features"])
def test_rejects_wrong_sets(name: str):
    good = {"real_features": draw(4, 3), "fake_features": draw(5, 3)}
    rule = f"frechet_distance: `{name}` must be of shape (samples, features) with at least two samples, but got "
    for shape in ((4,), (1, 3), (4, 0), (2, 2, 3)):
        with pytest.raises(ValueError, match="^" + re.escape(f"{rule}{name} of shape {shape}.") + "$"):
            frechet_distance(**{**good, name: draw(*shape)})
    with pytest.raises(TypeError, match=f"^frechet_distance: `{name}` must be of dtype floating point, but got"):
        frechet_distance(**{**good, name: torch.ones(4, 3, dtype=torch.int64)})
    spoilt = draw(4, 3)
    spoilt[1, 2] = torch.nan
    with pytest.raises(ValueError, match=rf"^frechet_distance: `{name}` must be finite, but got {name}='1 of 12 "):
        frechet_distance(**{**good, name: spoilt})


def test_rejects_sets_of_other_features():
    rule = "frechet_distance: `fake_features` must be of shape (samples, 3), but got fake_features of shape (5, 2)."
    with pytest.raises(ValueError, match="^" + re.escape(rule) + "$"):
        frechet_distance(draw(4, 3), draw(5, 2))


@given(
    dim=st.integers(1, 8),
    ranks=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    counts=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    shift=st.sampled_from([0.0, 1.0, 1000.0]),
    seed=st.integers(0, 99),
)
def test_features_of_any_rank_and_number_equal_the_eigenvalues(dim, ranks, counts, shift, seed: int):
    """Rank 0: all samples are the same. Fewer samples than features have less rank than these, too."""
    real, fake = (
        draw(count, rank, seed=seed + side) @ draw(rank, dim, seed=seed + side + 1) + shift * side
        for side, (count, rank) in enumerate(zip(counts, ranks, strict=True))
    )
    distance = frechet_distance(real, fake)
    scale = float(real.var(0).sum() + fake.var(0).sum() + (real.mean(0) - fake.mean(0)).square().sum())
    assert isinstance(distance, float)
    assert distance == pytest.approx(reference.frechet_distance(real.numpy(), fake.numpy()), abs=1e-6 * scale)
    assert -1e-12 * scale <= distance <= scale * (1 + 1e-12)


@pytest.mark.parametrize("counts", [(20, 25), (20, 200), (200, 20)])
def test_many_features_of_few_samples_equal_the_eigenvalues(counts: tuple[int, int]):
    real, fake = (draw(count, 96, seed=count).abs() * (1 + side) for side, count in enumerate(counts))
    assert frechet_distance(real, fake) == pytest.approx(
        reference.frechet_distance(real.numpy(), fake.numpy()), rel=1e-6
    )


@pytest.mark.parametrize("count", [2, 3, 30])
def test_features_that_are_dead_or_the_same_add_nothing(count: int):
    real, fake = draw(count, 3, seed=0), draw(count + 1, 3, seed=1)
    plain = frechet_distance(real, fake)
    padded = [torch.cat([features, torch.full((len(features), 5), 0.3)], dim=1) for features in (real, fake)]
    assert frechet_distance(*padded) == pytest.approx(plain, rel=1e-12)
    # A copy of a feature turns the pair into one that is longer by the root of two.
    copied = [torch.cat([features, features], dim=1) for features in (real, fake)]
    assert frechet_distance(*copied) == pytest.approx(2 * plain, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_features_are_no_nan(scale: float):
    real, fake = draw(9, 4, seed=0).float() * scale, draw(5, 4, seed=1).float() * scale
    wanted = frechet_distance(real.double() / scale, fake.double() / scale)
    assert frechet_distance(real, fake) == pytest.approx(wanted * scale**2, rel=1e-6)


def test_rejects_what_is_no_tensor():
    rule = r"^frechet_distance: `fake_features` must be a tensor, but got fake_features of type ndarray\.$"
    with pytest.raises(TypeError, match=rule):
        frechet_distance(draw(4, 3), np.ones((4, 3)))
