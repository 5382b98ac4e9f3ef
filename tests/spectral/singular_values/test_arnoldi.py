import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gan_blocks.spectral.singular_values import _triplets
from gan_blocks.spectral.singular_values.arnoldi import SingularTriplets, top_singular_triplets
from tests.reference import singular_values as reference

SPECTRA = {
    "random": lambda n, rng: torch.rand(n, generator=rng),
    "zero": lambda n, rng: torch.zeros(n),
    "rank one": lambda n, rng: torch.arange(n) < 1,
    "low rank": lambda n, rng: torch.arange(n) < (n + 2) // 3,
    "all equal": lambda n, rng: torch.ones(n),
    "repeated": lambda n, rng: torch.arange(n, 0, -1) // 4,
    "clustered": lambda n, rng: 1 + 1e-4 * torch.rand(n, generator=rng),
    "one ahead of a cluster": lambda n, rng: torch.where(torch.arange(n) < 1, 1 + 3e-4, torch.ones(n)),
    "explosive": lambda n, rng: torch.where(torch.arange(n) < 1, 1e4, torch.rand(n, generator=rng)),
    "over eight decades": lambda n, rng: 10 ** (-8 * torch.rand(n, generator=rng)),
    "slow decay": lambda n, rng: (1 + torch.arange(n)) ** -0.5,
}
# Sides from 385 on are iterated, with the two products, the Gram matrix, or both.
LARGE = [(400, 500), (640, 390)]


def matrix_with(values: Tensor, out: int, rest: int, rng: torch.Generator) -> Tensor:
    """A float64 matrix with these singular values and random singular vectors."""
    n = min(out, rest)
    left, right = (torch.linalg.qr(torch.randn(m, n, generator=rng, dtype=torch.float64)).Q for m in (out, rest))
    return (left * values.double()) @ right.T


def assert_certified(found: SingularTriplets, weight: Tensor, tol: float = 1e-4) -> None:
    """Every value within its bound of the float64 SVD, and the vectors what they claim to be."""
    matrix = weight.double().flatten(1)
    k = len(found.s)
    u, s, v, bound = (field.double() for field in found[:4])
    assert found.converged.all()
    assert (bound <= tol * s[0]).all()
    assert ((s - torch.linalg.svdvals(matrix)[:k]).abs() <= bound).all()
    for vectors in (u, v):
        torch.testing.assert_close(vectors @ vectors.T, torch.eye(k, dtype=torch.float64), atol=1e-5, rtol=0)
    residual = torch.cat([matrix @ v.T - u.T * s, matrix.T @ u.T - v.T * s]).norm(dim=0)
    assert (residual <= bound).all()
    short = u if len(matrix) <= matrix.shape[1] else v
    subspace = found.subspace.double()
    assert subspace.shape == (min(max(k + 1, 10), *matrix.shape), short.shape[1])
    torch.testing.assert_close(subspace @ subspace.T, torch.eye(len(subspace), dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(short @ subspace.T @ subspace, short, atol=1e-5, rtol=0)


@settings(max_examples=50)
@given(
    out=st.integers(1, 300),
    rest=st.integers(1, 300),
    k=st.integers(1, 6),
    kind=st.sampled_from(sorted(SPECTRA)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10_000),
)
def test_any_matrix_has_its_values_within_the_bounds(
    out: int, rest: int, k: int, kind: str, dtype: torch.dtype, seed: int
):
    rng = torch.Generator().manual_seed(seed)
    weight = matrix_with(SPECTRA[kind](min(out, rest), rng), out, rest, rng).to(dtype)
    found = top_singular_triplets(weight, min(k, out, rest))
    assert {field.dtype for field in found[:4]} == {dtype}
    assert_certified(found, weight)


@settings(max_examples=25)
@given(
    out=st.integers(1, 300),
    rest=st.integers(1, 300),
    kind=st.sampled_from(sorted(SPECTRA)),
    change=st.sampled_from([0.0, 1e-4, 1e-2, 10.0]),
    seed=st.integers(0, 10_000),
)
def test_any_warm_start_gives_values_within_the_bounds(out: int, rest: int, kind: str, change: float, seed: int):
    rng = torch.Generator().manual_seed(seed)
    weight = matrix_with(SPECTRA[kind](min(out, rest), rng), out, rest, rng).float()
    earlier = weight + change * weight.norm() * torch.randn(out, rest, generator=rng) / (out * rest) ** 0.5
    k = min(3, out, rest)
    assert_certified(top_singular_triplets(weight, k, start=top_singular_triplets(earlier, k)), weight)


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("shape", LARGE)
def test_large_matrices_of_any_spectrum_have_their_values_within_the_bounds(
    rng: torch.Generator, kind: str, shape: tuple[int, int]
):
    weight = matrix_with(SPECTRA[kind](min(shape), rng), *shape, rng).float()
    found = top_singular_triplets(weight)
    assert_certified(found, weight)
    changed = weight + 1e-3 * torch.randn(shape, generator=rng) * weight.abs().mean()
    assert_certified(top_singular_triplets(changed, start=found), changed)


@pytest.mark.parametrize("tol", [1e-2, 1e-6, 1e-9])
@pytest.mark.parametrize("shape", [(30, 40), (400, 420)])
def test_the_tolerance_is_kept_even_beyond_float32(rng: torch.Generator, tol: float, shape: tuple[int, int]):
    weight = torch.randn(shape, generator=rng, dtype=torch.float64)
    assert_certified(top_singular_triplets(weight, tol=tol), weight, tol)
    single = top_singular_triplets(weight.float(), tol=tol)
    assert single.converged.all() == (tol > 1e-8)
    assert ((single.s - torch.linalg.svdvals(weight.float().double())[:3]).abs() <= single.error_bound).all()


@given(
    values=st.lists(st.lists(st.floats(-3, 3), min_size=4, max_size=4), min_size=1, max_size=6),
    k=st.integers(1, 4),
)
def test_the_values_equal_those_of_jacobi_rotations(values: list[list[float]], k: int):
    weight = torch.tensor(values, dtype=torch.float64)
    k = min(k, len(values))
    found = top_singular_triplets(weight, k)
    torch.testing.assert_close(found.s.tolist(), reference.singular_values(values)[:k], atol=1e-7, rtol=1e-9)


def test_all_values_of_a_matrix_can_be_asked_for(rng: torch.Generator):
    for shape in [(1, 1), (1, 9), (9, 1), (20, 7), (60, 450)]:
        weight = torch.randn(shape, generator=rng)
        assert_certified(top_singular_triplets(weight, min(shape)), weight)


@pytest.mark.parametrize("size", [1.3, 2.5, 100.0])
@pytest.mark.parametrize("tol", [1e-3, 1e-4])
def test_a_leading_value_that_the_start_did_not_know_of_is_found(rng: torch.Generator, size: float, tol: float):
    weight = matrix_with(torch.linspace(1, 0, 400), 400, 500, rng).float()
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    old = top_singular_triplets(weight, tol=tol)
    for seed in range(5):
        grown = 200 + seed
        hidden = weight + (size - s[grown]) * torch.outer(u[:, grown], v[grown])
        found = top_singular_triplets(hidden, tol=tol, start=old, generator=torch.Generator().manual_seed(seed))
        assert_certified(found, hidden, tol)
        assert found.s[0].item() == pytest.approx(size, rel=tol)


@pytest.mark.parametrize("known", range(3))
def test_a_repeated_value_is_found_as_often_as_it_occurs_though_the_start_knew_fewer(rng: torch.Generator, known: int):
    values = torch.cat([torch.full((3,), 2.0), torch.linspace(1, 0, 397)])
    left, right = (torch.linalg.qr(torch.randn(m, 400, generator=rng)).Q for m in (400, 500))
    before = torch.where(torch.arange(400) < known, 2.0, torch.where(torch.arange(400) < 3, 0.1, values))
    old = top_singular_triplets((left * before) @ right.T)
    found = top_singular_triplets((left * values) @ right.T, 4, start=old)
    torch.testing.assert_close(found.s, torch.tensor([2.0, 2, 2, 1]), atol=1e-4, rtol=0)
    assert found.converged.all()


def columns_multiplied(monkeypatch: pytest.MonkeyPatch, weight: Tensor, **arguments: object) -> int:
    """How many vectors the weight and its transpose multiply in one call; forming the Gram matrix fails the test."""
    columns = []

    def counted(matrix: Tensor, vectors: Tensor) -> Tensor:
        columns.append(vectors.shape[-1])
        return matrix @ vectors

    with monkeypatch.context() as patch:
        patch.setattr(_triplets, "skinny_product", counted)
        patch.setattr(_triplets, "gram_matrix", lambda matrix: pytest.fail("formed the Gram matrix"))
        assert_certified(top_singular_triplets(weight, **arguments), weight, arguments["tol"])
    return sum(columns)


@pytest.mark.parametrize(("tol", "steps"), [(3e-3, 2), (1e-3, 3)])
def test_a_start_saves_products_and_a_useless_one_costs_at_most_a_step(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch, tol: float, steps: int
):
    weight = matrix_with(torch.exp(-torch.arange(420) / 20), 420, 500, rng).float()
    change = torch.randn(420, 500, generator=rng)
    changed = weight + 1e-2 * change / torch.linalg.matrix_norm(change, 2)
    step = 2 * 16  # a block, by the weight and by its transpose
    start = top_singular_triplets(weight, tol=tol)
    # All that the result and its bound need has been multiplied in the search.
    assert columns_multiplied(monkeypatch, changed, tol=tol, start=start) == steps * step
    assert columns_multiplied(monkeypatch, weight, tol=tol, start=start) == steps * step
    cold = columns_multiplied(monkeypatch, changed, tol=tol)
    assert cold > steps * step
    left = torch.linalg.svd(changed).U.T
    for useless in (left[-10:], left[10:20]):
        wrong = start._replace(subspace=useless)
        assert columns_multiplied(monkeypatch, changed, tol=tol, start=wrong) <= cold + step


def test_more_or_fewer_vectors_than_wanted_can_start(rng: torch.Generator):
    weight = matrix_with(torch.linspace(1, 0, 400) ** 4, 400, 500, rng).float()
    one, many = top_singular_triplets(weight, 1), top_singular_triplets(weight, 30)
    assert_certified(top_singular_triplets(weight, 4, start=one), weight)
    assert_certified(top_singular_triplets(weight, 4, start=many), weight)


def test_a_weight_is_read_as_out_by_rest_in_any_memory_format(rng: torch.Generator):
    for shape in [(8, 3, 5, 5), (500, 44, 3, 3), (44, 5, 10, 11)]:
        weight = torch.randn(shape, generator=rng)
        plain = top_singular_triplets(weight)
        assert_certified(plain, weight)
        image = weight.to(memory_format=torch.channels_last)
        found = top_singular_triplets(image)
        assert_certified(found, weight)
        assert_certified(top_singular_triplets(image, start=plain), weight)
        assert_certified(top_singular_triplets(weight.double().flip(0), start=None), weight.double().flip(0))


@pytest.mark.parametrize("shape", [(6, 4, 3), (100, 30), (600, 500)])
def test_a_list_of_weights_gives_the_triplets_of_each(rng: torch.Generator, shape: tuple[int, ...]):
    weights = [torch.randn(shape, generator=rng) * 10**n for n in range(3)]
    stacked = top_singular_triplets(weights)
    assert [tuple(field.shape) for field in stacked[:3]] == [(3, 3, shape[0]), (3, 3), (3, 3, weights[0][0].numel())]
    for triplets in (stacked, top_singular_triplets(weights, start=stacked)):
        for index, weight in enumerate(weights):
            assert_certified(SingularTriplets(*(field[index] for field in triplets)), weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_worked_on_in_float32(rng: torch.Generator, dtype: torch.dtype):
    weight = torch.randn(20, 30, generator=rng).to(dtype)
    found = top_singular_triplets(weight)
    assert found.s.dtype == torch.float32
    assert_certified(found, weight)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("shape", [(12, 9), (400, 450)])
def test_values_whose_squares_no_float_can_hold_are_found(rng: torch.Generator, scale: float, shape: tuple[int, int]):
    weight = torch.randn(shape, generator=rng) * scale
    assert_certified(top_singular_triplets(weight), weight)


def test_the_result_depends_on_the_generator_alone(rng: torch.Generator):
    weight = torch.randn(400, 500, generator=rng)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    runs = [top_singular_triplets(weight, generator=g and torch.Generator().manual_seed(g)) for g in (None, None, 7, 7)]
    assert torch.get_rng_state().equal(state)
    for a, b in (runs[:2], runs[2:]):
        assert all(x.equal(y) for x, y in zip(a, b, strict=True))
    assert not runs[0].u.equal(runs[2].u)
    warm = [top_singular_triplets(weight, start=runs[2], generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert all(x.equal(y) for x, y in zip(*warm, strict=True))


def test_gradients_and_autocast_stay_outside(rng: torch.Generator):
    weight = torch.randn(400, 450, generator=rng, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = top_singular_triplets(weight)
    assert not found.s.requires_grad
    assert_certified(found, weight.detach())


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="torch before 2.9 has one setting for all")
def test_the_search_multiplies_exactly_where_coarse_products_were_asked_for(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
):
    backend, seen = torch.backends.mkldnn.matmul, set()
    product = _triplets.skinny_product

    def watched(matrix: Tensor, vectors: Tensor) -> Tensor:
        seen.add(backend.fp32_precision)
        return product(matrix, vectors)

    monkeypatch.setattr(_triplets, "skinny_product", watched)
    try:
        backend.fp32_precision = "bf16"
        top_singular_triplets(torch.randn(20, 30, generator=rng))
        assert backend.fp32_precision == "bf16"
    finally:
        backend.fp32_precision = "none"
    assert seen == {"ieee"}


def test_running_out_of_products_is_reported_with_an_honest_bound(rng: torch.Generator):
    weight = matrix_with(torch.linspace(2, 1, 450), 450, 500, rng).float()
    found = top_singular_triplets(weight, tol=1e-5, max_matvecs=32)
    assert not found.converged.any()
    distance = (found.s[:, None] - torch.linalg.svdvals(weight)).abs().amin(1)
    assert (distance <= found.error_bound).all()
    assert (found.error_bound > 1e-5 * found.s[0]).all()
    assert top_singular_triplets(weight, tol=1e-5).converged.all()


def test_the_meta_device_gives_shapes():
    found = top_singular_triplets(torch.empty(5, 2, 3, device="meta"), 2)
    assert [tuple(field.shape) for field in found] == [(2, 5), (2,), (2, 6), (2,), (2,), (5, 5)]
    assert all(field.is_meta for field in found)


def fails(weight: Tensor | list[Tensor], message: str, **arguments: object) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'top_singular_triplets: {message}')}$"):
        top_singular_triplets(weight, **arguments)


@pytest.mark.parametrize("k", [0, 4])
def test_rejects_a_k_that_the_weight_does_not_have(k: int):
    fails(torch.eye(3, 5), f"`k` must be from 1 to min(out, rest) = 3, but got k={k}.", k=k)


@pytest.mark.parametrize("entry", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("shape", [(3, 4), (400, 450), (450, 400)])
def test_rejects_entries_that_are_not_finite(rng: torch.Generator, entry: str, shape: tuple[int, int]):
    weight = torch.randn(shape, generator=rng)
    weight[-1, 1] = float(entry)
    fails(weight, f"`weight` must be finite, but got weight={entry}.")


@pytest.mark.parametrize("shape", [(3,), (), (0, 3), (3, 0)])
def test_rejects_a_weight_that_is_no_matrix(shape: tuple[int, ...]):
    rule = "(out, ...) with at least two dimensions and one entry"
    fails(torch.zeros(shape), f"`weight` must be of shape {rule}, but got weight of shape {shape}.")


def test_rejects_other_arguments_outside_their_range():
    weight = torch.eye(3)
    fails([], "`weight` must be a tensor or a list of at least one, but got weight=[].")
    fails(weight.long(), "`weight` must be of a floating dtype, but got weight=torch.int64.")
    fails(
        [weight, torch.eye(4)],
        "`weight` must be of shape (3, 3), like the first of the list, but got weight of shape (4, 4).",
    )
    fails(weight, "`tol` must be greater than 0, but got tol=0.", tol=0)
    fails(weight, "`max_matvecs` must be greater than 0, but got max_matvecs=0.", max_matvecs=0)


def test_rejects_a_start_for_another_shape():
    fails(
        torch.eye(3),
        "`start.u` must be of shape (k, 3), but got start.u of shape (2, 4).",
        start=top_singular_triplets(torch.eye(4, 3), 2),
    )
    fails(
        torch.eye(3, 4),
        "`start.v` must be of shape (k, 4), but got start.v of shape (2, 3).",
        start=top_singular_triplets(torch.eye(3), 2),
    )
    start = top_singular_triplets(torch.eye(3, 4), 2)
    fails(
        torch.eye(3, 4),
        "`start.subspace` must be of shape (m, 3), but got start.subspace of shape (2, 4).",
        start=start._replace(subspace=start.v),
    )
    fails(
        [torch.eye(3), torch.eye(3)],
        "`start.u` must be of shape (2, k, 3), but got start.u of shape (3, 3).",
        start=top_singular_triplets(torch.eye(3)),
    )
