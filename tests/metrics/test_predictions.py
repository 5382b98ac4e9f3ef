import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import classifier_score
from tests.drawn import draw
from tests.reference import feature_metrics as reference


@pytest.mark.parametrize(("count", "splits"), [(12, 1), (12, 3), (11, 3), (5, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_equals_the_divergences_image_by_image(count: int, splits: int, dtype: torch.dtype):
    logits = (3 * draw(count, 4)).to(dtype)
    scores = [reference.classifier_score(part.tolist()) for part in np.array_split(logits.double().numpy(), splits)]
    got = classifier_score(logits, splits=splits)
    assert got.mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert got.standard_deviation == pytest.approx(np.std(scores), rel=1e-9, abs=1e-12)


@given(classes=st.integers(1, 9), each=st.integers(1, 4), sure=st.sampled_from([100.0, 1e4, 3e38, 1e308]))
def test_is_the_number_of_classes_for_sure_predictions_of_all_of_them(classes: int, each: int, sure: float):
    logits = sure * torch.eye(classes, dtype=torch.float64).repeat(each, 1)
    assert classifier_score(logits, splits=1).mean == pytest.approx(classes, rel=1e-12)
    contrary = logits.where(logits > 0, -sure)
    assert classifier_score(contrary, splits=each) == pytest.approx((classes, 0), rel=1e-12, abs=1e-12)


@given(classes=st.integers(1, 9), count=st.integers(2, 9), seed=st.integers(0, 99), scale=st.sampled_from([1, 100]))
def test_is_one_for_constant_predictions(classes: int, count: int, seed: int, scale: int):
    logits = scale * draw(1, classes, seed=seed).expand(count, classes)
    assert classifier_score(logits, splits=2) == pytest.approx((1, 0), abs=1e-12)


@given(classes=st.integers(1, 6), count=st.integers(2, 9), seed=st.integers(0, 99), scale=st.sampled_from([0.1, 1, 10]))
def test_lies_between_these_and_knows_no_order(classes: int, count: int, seed: int, scale: float):
    logits = scale * draw(count, classes, seed=seed)
    score = classifier_score(logits, splits=1).mean
    assert 1 - 1e-12 <= score <= min(classes, count) + 1e-12
    same = pytest.approx(score, rel=1e-10)
    assert classifier_score(logits.flip(0), splits=1).mean == same
    assert classifier_score(logits.roll(1, 1), splits=1).mean == same
    assert classifier_score(logits + draw(count, 1, seed=seed + 1), splits=1).mean == same  # of each image


def test_parts_of_one_class_each_have_the_least_score_as_documented():
    logits = 100 * torch.eye(5).repeat_interleave(20, dim=0)
    assert classifier_score(logits, splits=5) == pytest.approx((1, 0))
    shuffled = logits[torch.randperm(len(logits), generator=torch.Generator().manual_seed(0))]
    assert classifier_score(shuffled, splits=5).mean > 4


@pytest.mark.parametrize(
    ("shape", "splits", "message"),
    [
        ((10,), 2, "with at least splits=2 samples, but got logits of shape (10,)."),
        ((3, 4), 5, "with at least splits=5 samples, but got logits of shape (3, 4)."),
        ((3, 0), 1, "with at least splits=1 samples, but got logits of shape (3, 0)."),
    ],
)
def test_rejects_wrong_shapes(shape: tuple[int, ...], splits: int, message: str):
    rule = f"classifier_score: `logits` must be of shape (samples, classes) {message}"
    with pytest.raises(ValueError, match="^" + re.escape(rule) + "$"):
        classifier_score(torch.zeros(shape), splits=splits)


def test_rejects_other_wrong_arguments():
    with pytest.raises(ValueError, match=r"^classifier_score: `splits` must be greater than 0, but got splits=0\.$"):
        classifier_score(torch.zeros(4, 2), splits=0)
    with pytest.raises(TypeError, match=r"^classifier_score: `splits` must be a whole number, but got splits of type"):
        classifier_score(torch.zeros(4, 2), splits=2.0)
    with pytest.raises(TypeError, match=r"^classifier_score: `logits` must be of dtype floating point, but got logits"):
        classifier_score(torch.zeros(4, 2, dtype=torch.int64), splits=1)
    with pytest.raises(ValueError, match=r"^classifier_score: `logits` must be finite, but got logits='2 of 8 values"):
        classifier_score(torch.tensor([[torch.nan, -torch.inf]] + 3 * [[0.0, 1.0]]), splits=1)
