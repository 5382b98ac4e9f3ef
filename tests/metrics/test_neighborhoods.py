import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gan_blocks import density_coverage, neighborhood_members, neighborhood_radii, precision_recall
from gan_blocks.metrics import neighborhoods
from tests.drawn import draw
from tests.reference import feature_metrics as reference

both = pytest.mark.parametrize("metric", [precision_recall, density_coverage], ids=lambda metric: metric.__name__)
Metric = Callable[..., tuple[float, float]]


def assert_equals_the_definition(real: Tensor, fake: Tensor, neighbors: int) -> None:
    for metric, wanted in (
        (precision_recall, reference.precision_recall),
        (density_coverage, reference.density_coverage),
    ):
        got = metric(real, fake, num_neighbors=neighbors)
        assert got == pytest.approx(wanted(real.tolist(), fake.tolist(), neighbors), rel=1e-12)


@given(dim=st.integers(1, 4), neighbors=st.integers(1, 4), more=st.integers(1, 9), seed=st.integers(0, 99))
def test_equals_the_definition_point_by_point(dim: int, neighbors: int, more: int, seed: int):
    real, fake = draw(neighbors + more, dim, seed=seed), draw(neighbors + 1, dim, seed=seed + 1) + 0.5
    assert_equals_the_definition(real, fake, neighbors)


whole = st.integers(-2, 2).map(float)


@given(
    real=st.lists(st.tuples(whole, whole), min_size=4, max_size=12),
    fake=st.lists(st.tuples(whole, whole), min_size=4, max_size=12),
    neighbors=st.integers(1, 3),
    shift=st.sampled_from([0.0, 1000.25, 1e6]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_ties_and_copies_are_inside_as_in_the_definition(
    real: list[tuple[float, ...]], fake: list[tuple[float, ...]], neighbors: int, shift: float, dtype: torch.dtype
):
    """Points of a small grid: many are at equal distances, many are the same, wherever the grid lies."""
    assert_equals_the_definition(
        torch.tensor(real, dtype=dtype) + shift, torch.tensor(fake, dtype=dtype) + shift, neighbors
    )


@given(count=st.integers(1, 30), neighbors=st.integers(1, 3), dim=st.integers(1, 40), copies=st.integers(1, 5))
def test_a_set_lies_within_itself(count: int, neighbors: int, dim: int, copies: int):
    features = draw(count, dim, seed=count).float().repeat(copies, 1) + 100
    if len(features) <= neighbors:
        return
    other = features.flip(0)
    assert precision_recall(features, other, num_neighbors=neighbors) == (1, 1)
    density, coverage = density_coverage(features, other, num_neighbors=neighbors)
    assert coverage == 1
    if copies == 1:  # a ball holds its neighbors and its center
        assert density == pytest.approx((neighbors + 1) / neighbors)


@pytest.mark.parametrize("dim", [1, 2048])
@pytest.mark.parametrize("shift", [0, 1e6])
def test_what_is_a_little_outside_is_outside(dim: int, shift: float):
    real = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, dim) + shift
    for far, inside in ((2, 1), (2 + 1e-6, 0)):
        fake = torch.full((2, dim), far + shift, dtype=torch.float64)
        assert precision_recall(real, fake, num_neighbors=1).precision == inside
        assert density_coverage(real, fake, num_neighbors=1) == (inside, inside / 2)


def modes(count: int, number: int, seed: int) -> Tensor:
    """Points around the centers 0, 100, 200, ..., as many of each."""
    centers = 100.0 * torch.arange(number).repeat_interleave(count)
    return draw(count * number, 3, seed=seed) + centers[:, None]


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_recall_and_coverage_fall_with_the_modes_that_are_lost(kept: int):
    real, fake = modes(40, 4, seed=0), modes(40, 4, seed=1)[: 40 * kept]
    precision, recall = precision_recall(real, fake)
    density, coverage = density_coverage(real, fake)
    assert precision > 0.75
    assert 0.75 * kept / 4 < recall <= kept / 4
    assert density > 0.7
    assert 0.8 * kept / 4 < coverage <= kept / 4


@pytest.mark.parametrize("bad", [0, 40, 80, 160])
def test_precision_and_density_fall_with_samples_that_resemble_nothing(bad: int):
    real, fake = modes(40, 4, seed=0), modes(40, 4, seed=1)
    fake[:bad] -= 1000
    precision, _ = precision_recall(real, fake)
    density, _ = density_coverage(real, fake)
    good = 1 - bad / 160
    assert 0.75 * good <= precision <= good
    assert density == pytest.approx(good, abs=0.2)


def test_density_withstands_an_outlier_that_precision_does_not():
    real, bad = draw(100, 2, seed=0), draw(100, 2, seed=1) + 8
    assert precision_recall(real, bad).precision == 0
    real[0] = 10
    assert precision_recall(real, bad).precision == 1
    assert density_coverage(real, bad).density < 0.3


def test_density_and_coverage_of_one_distribution_have_the_documented_expectation():
    n, m, k = 7, 5, 2
    trials = [density_coverage(*draw(n + m, 2, seed=seed).split([n, m]), num_neighbors=k) for seed in range(600)]
    density, coverage = np.mean(trials, axis=0)
    errors = 4 * np.std(trials, axis=0) / len(trials) ** 0.5
    assert density == pytest.approx(1, abs=errors[0])
    assert coverage == pytest.approx(1 - (n - 1) * (n - 2) / ((m + n - 1) * (m + n - 2)), abs=errors[1])


@given(seed=st.integers(0, 99), dim=st.integers(1, 5))
def test_order_shift_scale_and_rotation_do_not_matter(seed: int, dim: int):
    real, fake = draw(15, dim, seed=seed), draw(11, dim, seed=seed + 1) + 0.5
    rotation = torch.linalg.qr(draw(dim, dim, seed=seed + 2)).Q
    for metric in (precision_recall, density_coverage):
        plain = metric(real, fake)
        assert metric(real.flip(0), fake.roll(3, 0)) == plain
        assert metric(10 * (real @ rotation) + 7, 10 * (fake @ rotation) + 7) == plain
    assert precision_recall(fake, real) == precision_recall(real, fake)[::-1]


@both
def test_the_blocks_do_not_matter(metric: Metric, monkeypatch: pytest.MonkeyPatch):
    real, fake = draw(30, 3, seed=0), draw(23, 3, seed=1)
    plain = metric(real, fake)
    monkeypatch.setattr(neighborhoods, "ROWS_AT_ONCE", 4)
    assert metric(real, fake) == plain


class LargestTensor(TorchDispatchMode):
    """Notes the number of values of the largest tensor that any operation gives."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple) else (result,):
            self.size = max(self.size, each.numel() if isinstance(each, Tensor) else 0)
        return result


@both
def test_takes_the_memory_of_blocks(metric: Metric, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighborhoods, "ROWS_AT_ONCE", 10)
    real, fake = draw(50, 6, seed=0), draw(40, 6, seed=1)
    with LargestTensor() as largest:
        metric(real, fake)
    assert 0 < largest.size <= real.numel()  # all distances would be 2,000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@both
def test_features_of_low_precision_are_taken_as_they_are(metric: Metric, dtype: torch.dtype):
    real, fake = draw(20, 3, seed=0).to(dtype), draw(20, 3, seed=1).to(dtype)
    assert metric(real, fake) == metric(real.double(), fake.double())


@both
@pytest.mark.parametrize("name", ["real_features", "fake_features"])
def test_rejects_wrong_sets(metric: Metric, name: str):
    good = {"real_features": draw(4, 3), "fake_features": draw(5, 3), "num_neighbors": 3}
    least = "more than num_neighbors=3 samples"
    shapes = [(4,), (3, 3), (4, 0), (2, 2, 3)]
    if (metric, name) == (density_coverage, "fake_features"):  # it has no neighbors
        least, shapes[1] = "at least one sample", (0, 3)
    rule = f"{metric.__name__}: `{name}` must be of shape (samples, features) with {least}, but got {name} of shape"
    for shape in shapes:
        with pytest.raises(ValueError, match="^" + re.escape(f"{rule} {shape}.") + "$"):
            metric(**{**good, name: draw(*shape)})
    with pytest.raises(TypeError, match=f"^{metric.__name__}: `{name}` must be of dtype floating point, but got"):
        metric(**{**good, name: torch.ones(4, 3, dtype=torch.int64)})
    spoilt = draw(4, 3)
    spoilt[1, 2] = torch.nan
    with pytest.raises(ValueError, match=rf"^{metric.__name__}: `{name}` must be finite, but got {name}='1 of 12 "):
        metric(**{**good, name: spoilt})


@both
def test_rejects_other_wrong_arguments(metric: Metric):
    for options, error, message in (
        ({"num_neighbors": 0}, ValueError, "`num_neighbors` must be greater than 0, but got num_neighbors=0."),
        (
            {"num_neighbors": 1.0},
            TypeError,
            "`num_neighbors` must be a whole number, but got num_neighbors of type float.",
        ),
        (
            {"fake_features": torch.zeros(9, 2)},
            ValueError,
            "`fake_features` must be of shape (samples, 3), but got fake_features of shape (9, 2).",
        ),
    ):
        with pytest.raises(error, match="^" + re.escape(f"{metric.__name__}: {message}") + "$"):
            metric(**{"real_features": torch.zeros(9, 3), "fake_features": torch.zeros(9, 3), **options})


def test_the_means_of_members_are_the_metrics(rng: torch.Generator):
    real, fake = torch.randn(60, 4, generator=rng), 1.3 * torch.randn(45, 4, generator=rng)
    fake[:5] = real[:5]
    members = neighborhood_members(real, fake, recall_neighbors=2, density_neighbors=4)
    shares = [each.double().mean().item() for each in members]
    assert shares[:2] == pytest.approx(precision_recall(real, fake, num_neighbors=2))
    assert shares[2:] == pytest.approx(density_coverage(real, fake, num_neighbors=4))
    assert members.precise[:5].all()


def test_members_are_those_of_the_samples_that_are_given(rng: torch.Generator):
    real = torch.randn(50, 3, generator=rng)
    fake = torch.cat([real[:4] + 0.01, 50 + torch.randn(4, 3, generator=rng)])
    members = neighborhood_members(real, fake)
    assert members.precise.tolist() == [True] * 4 + [False] * 4
    assert (members.density > 0).tolist() == members.precise.tolist()
    assert members.covered[:4].all()


@given(dim=st.integers(1, 4), seed=st.integers(0, 99))
def test_radii_are_distances_to_neighbors(dim: int, seed: int):
    features = draw(9, dim, seed=seed).double()
    squares = torch.cdist(features, features).square().sort(dim=1).values  # the first of each is itself
    radii = neighborhood_radii(features, recall_neighbors=2, density_neighbors=4)
    assert radii.dtype == torch.float64
    assert torch.allclose(radii, squares[:, [2, 4]], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shift", [0, 1e6])
def test_members_are_the_same_with_radii_that_are_known(shift: float, monkeypatch: pytest.MonkeyPatch):
    real, fake = draw(50, 3, seed=0) + shift, draw(40, 3, seed=1) + shift
    fake[:9] = real[:9]
    plain = neighborhood_members(real, fake)
    radii = torch.tensor(neighborhood_radii(real).tolist(), dtype=torch.float64)  # as a file of JSON keeps them
    looked_for = []
    unknown = neighborhoods._radii
    monkeypatch.setattr(
        neighborhoods, "_radii", lambda some, *others: looked_for.append(some) or unknown(some, *others)
    )
    found = neighborhood_members(real, fake, real_radii=radii)
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
    assert len(looked_for) == 1
    assert looked_for[0] is fake
    points = neighborhood_members(real, fake, real_radii=0 * radii)
    assert points.precise.nonzero().flatten().tolist() == list(range(9))  # copies are inside of points


def test_rejects_radii_of_other_samples():
    real = draw(9, 2)
    rule = "`real_radii` must be of shape (9, 2), but got real_radii of shape (8, 2)."
    with pytest.raises(ValueError, match="^" + re.escape(f"neighborhood_members: {rule}") + "$"):
        neighborhood_members(real, real, real_radii=neighborhood_radii(real[1:]))
    with pytest.raises(
        ValueError, match=r"^neighborhood_radii: `features` must be of shape .* with more than 5 samples"
    ):
        neighborhood_radii(real[:5])
    with pytest.raises(ValueError, match=r"^neighborhood_radii: `density_neighbors` must be greater than 0"):
        neighborhood_radii(real, density_neighbors=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recall_neighbors": 0}, "`recall_neighbors` must be greater than 0"),
        ({"density_neighbors": 9}, "with more than 9 samples"),
        ({"recall_neighbors": 6}, "with more than recall_neighbors=6 samples"),
    ],
)
def test_members_need_enough_samples(options: dict[str, int], message: str):
    with pytest.raises(ValueError, match=r"^neighborhood_members: ") as error:
        neighborhood_members(torch.zeros(9, 2), torch.zeros(6, 2), **options)
    assert message in str(error.value)
