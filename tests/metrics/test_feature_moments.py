import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_blocks import FeatureMoments, frechet_distance
from tests.drawn import draw


def moments_of(features: Tensor, *batches: int) -> FeatureMoments:
    """The batches' sizes; what is left is the last batch."""
    moments = FeatureMoments(features.shape[1])
    for batch in features.split([*batches, len(features) - sum(batches)]):
        moments.update(batch)
    return moments


def assert_same(got: FeatureMoments, features: Tensor) -> None:
    assert got.count == len(features)
    torch.testing.assert_close(got.mean, features.double().mean(0), rtol=1e-12, atol=1e-12)
    wanted = features.double().T.cov().reshape(features.shape[1], -1)
    torch.testing.assert_close(got.covariance, wanted, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got.covariance_root.T @ got.covariance_root, wanted, rtol=1e-10, atol=1e-12)


@given(batches=st.lists(st.integers(1, 9), max_size=6), last=st.integers(2, 9), dim=st.integers(1, 5))
def test_equals_the_moments_of_all_at_once_however_they_are_split(batches: list[int], last: int, dim: int):
    features = draw(sum(batches) + last, dim, seed=last) @ draw(dim, dim, seed=1) + 3
    moments = moments_of(features, *batches)
    assert_same(moments, features)
    other = draw(7, dim, seed=2)
    wanted = pytest.approx(frechet_distance(features, other), rel=1e-9, abs=1e-9)
    assert frechet_distance(moments, other) == wanted
    assert frechet_distance(moments, moments_of(other, 3)) == wanted
    assert frechet_distance(other, moments) == wanted


@given(sizes=st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(lambda sizes: sum(sizes) > 1))
def test_merging_equals_the_moments_of_all_in_any_order(sizes: list[int]):
    parts = draw(sum(sizes), 3).split(sizes)
    one, two, three = (moments_of(part) if len(part) else FeatureMoments(3) for part in parts)
    two.merge(three)
    two.merge(one)
    assert_same(two, torch.cat(parts))
    assert three.count == sizes[2]  # as it was
    if sizes[2] > 1:
        assert_same(three, parts[2])


def test_a_merged_copy_is_its_own():
    source, copy = moments_of(draw(5, 2)), FeatureMoments(2)
    copy.merge(source)
    copy.update(draw(4, 2, seed=1))
    copy.mean.zero_()
    assert_same(source, draw(5, 2))
    assert_same(copy, torch.cat([draw(5, 2), draw(4, 2, seed=1)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_large_mean_costs_no_digits(dtype: torch.dtype):
    features = ((draw(60, 3) * 64).round() / 64 + 4096).to(dtype)  # exact in float32
    moments = moments_of(features, *[7] * 6)
    torch.testing.assert_close(moments.covariance, (features.double() - 4096).T.cov(), rtol=1e-11, atol=1e-11)


def test_features_that_lack_rank_lose_no_digits():
    """Of sums of products, the roots of the missing directions would be rounding errors of 1e-8."""
    mixing = draw(3, 40, seed=0)
    real, fake = draw(200, 3, seed=1) @ mixing, draw(150, 2, seed=2) @ mixing[:2]
    distance = frechet_distance(moments_of(real, *[20] * 9), moments_of(fake, *[15] * 9))
    assert distance == pytest.approx(frechet_distance(real, fake), rel=1e-10)
    # The same distribution in the three directions that there are.
    basis = torch.linalg.qr(mixing.T).Q
    assert distance == pytest.approx(frechet_distance(real @ basis, fake @ basis), rel=1e-10)
    assert frechet_distance(moments_of(real, 50), real) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_keeps_no_more_than_two_rows_for_each_feature(batch: int):
    moments, features = FeatureMoments(4), draw(200, 4)
    for some in features.split(batch):
        moments.update(some)
        assert len(moments._rows) <= 8
    assert_same(moments, features)


def test_the_repr_says_how_many_there_are():
    assert repr(moments_of(draw(5, 2))) == "FeatureMoments(num_features=2, count=5)"


def test_reading_needs_samples():
    moments = FeatureMoments(2)
    for what in ("covariance", "covariance_root"):
        with pytest.raises(RuntimeError, match=rf"^FeatureMoments: `{what}` needs two samples, but got count=0\.$"):
            getattr(moments, what)
    with pytest.raises(RuntimeError, match=r"^FeatureMoments: `mean` needs a sample, but got count=0\.$"):
        moments.mean  # noqa: B018
    moments.update(draw(1, 2))
    torch.testing.assert_close(moments.mean, draw(2))
    with pytest.raises(RuntimeError, match=r"^FeatureMoments: `covariance` needs two samples, but got count=1\.$"):
        moments.covariance  # noqa: B018
    rule = (
        "`fake_features` must be moments of at least two samples, but got fake_features=FeatureMoments(num_features=2, "
    )
    with pytest.raises(ValueError, match="^" + re.escape(f"frechet_distance: {rule}count=1).") + "$"):
        frechet_distance(draw(4, 2), moments)


def test_rejects_other_features_and_leaves_what_there_is():
    moments = moments_of(draw(5, 2))
    for shape in ((2,), (2, 3), (0, 2)):
        with pytest.raises(ValueError, match=r"^FeatureMoments: `features` must be of shape \(samples, "):
            moments.update(draw(*shape))
    with pytest.raises(ValueError, match=r"^FeatureMoments: `features` must be finite, but got features='1 of 2 "):
        moments.update(torch.tensor([[0.0, torch.nan]]))
    with pytest.raises(TypeError, match=r"^FeatureMoments: `features` must be of dtype floating point, but got"):
        moments.update(torch.ones(3, 2, dtype=torch.int64))
    rule = r"`other` must be moments of 2 features, but got other=FeatureMoments\(num_features=3, count=0\)\.$"
    with pytest.raises(ValueError, match=f"^FeatureMoments: {rule}"):
        moments.merge(FeatureMoments(3))
    with pytest.raises(
        TypeError, match=r"^FeatureMoments: `other` must be a FeatureMoments, but got other of type Ten"
    ):
        moments.merge(draw(3, 2))
    rule = (
        r"`fake_features` must be moments of 3 features, but got fake_features=FeatureMoments\(num_features=2, count=5"
    )
    with pytest.raises(ValueError, match=f"^frechet_distance: {rule}"):
        frechet_distance(draw(4, 3), moments)
    with pytest.raises(
        ValueError, match=r"^frechet_distance: `fake_features` must be of shape \(samples, 2\), but got"
    ):
        frechet_distance(moments, draw(4, 3))
    assert_same(moments, draw(5, 2))


def test_rejects_a_wrong_number_of_features():
    with pytest.raises(ValueError, match=r"^FeatureMoments: `num_features` must be greater than 0, but got num_feat"):
        FeatureMoments(0)
    with pytest.raises(
        TypeError, match=r"^FeatureMoments: `num_features` must be a whole number, but got num_features"
    ):
        FeatureMoments(2.0)
