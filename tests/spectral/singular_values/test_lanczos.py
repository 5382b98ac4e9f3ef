import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_blocks.spectral.singular_values._lanczos import BlockLanczos


def symmetric(values: Tensor, rng: torch.Generator) -> Tensor:
    """A symmetric matrix with the given eigenvalues and random eigenvectors."""
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=rng, dtype=torch.float64)).Q
    return (basis * values) @ basis.T


def run(matrix: Tensor, start: Tensor, count: int, steps: int, rng: torch.Generator) -> BlockLanczos:
    lanczos = BlockLanczos(start[None], count, rng)
    for _ in range(steps):
        lanczos.step(lambda vectors: matrix @ vectors)
    return lanczos


@given(steps=st.integers(1, 30), seed=st.integers(0, 1000))
def test_an_eigenvalue_lies_within_the_residual_of_every_value_at_every_step(steps: int, seed: int):
    rng = torch.Generator().manual_seed(seed)
    values = torch.rand(90, generator=rng, dtype=torch.float64)
    matrix = symmetric(values, rng)
    start = torch.randn(90, 5, generator=rng, dtype=torch.float64)
    lanczos = run(matrix, start, 3, steps, rng)
    distance = (lanczos.values[0, :, None] - values).abs().amin(1)
    assert (distance <= lanczos.residuals[0] + 1e-12).all()
    vectors = lanczos.vectors()[0]
    residuals = (matrix @ vectors - vectors * lanczos.values[0]).norm(dim=0)
    torch.testing.assert_close(residuals, lanczos.residuals[0], atol=1e-12, rtol=1e-6)


@pytest.mark.parametrize("size", [64, 70, 200])
def test_it_converges_through_many_restarts_to_the_leading_eigenpairs(rng: torch.Generator, size: int):
    values = torch.linspace(1, 2, size, dtype=torch.float64)
    lanczos = run(symmetric(values, rng), torch.randn(size, 16, generator=rng, dtype=torch.float64), 3, 60, rng)
    torch.testing.assert_close(lanczos.values[0], values.flip(0)[:3], atol=1e-9, rtol=0)
    vectors = lanczos.vectors()[0]
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(3, dtype=torch.float64))
    assert lanczos.steps == 60
    assert lanczos.products == 60 * 16


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_what_the_operator_left_behind_gives_the_images_of_the_ritz_vectors(rng: torch.Generator, steps: int):
    # 40 rows hold three blocks of 10 before a restart.
    factor = torch.randn(40, 70, generator=rng, dtype=torch.float64)
    halves: list[Tensor] = []

    def operator(vectors: Tensor) -> Tensor:
        halves.append(factor.T @ vectors)
        return factor @ halves[-1]

    lanczos = BlockLanczos(torch.randn(1, 40, 10, generator=rng, dtype=torch.float64), 3, rng)
    for _ in range(steps):
        lanczos.step(operator)
    vectors = lanczos.vectors()
    torch.testing.assert_close(vectors, lanczos.vectors(7)[..., :3])
    torch.testing.assert_close(lanczos.images(), factor @ (factor.T @ vectors))
    if steps == 4:
        assert lanczos.combine(halves) is None
    else:
        torch.testing.assert_close(lanczos.combine(halves), factor.T @ vectors)


def test_a_repeated_eigenvalue_is_found_as_often_as_it_occurs(rng: torch.Generator):
    values = torch.cat([torch.full((3,), 2.0), torch.full((97,), 1.0)]).double()
    lanczos = run(symmetric(values, rng), torch.randn(100, 5, generator=rng, dtype=torch.float64), 4, 3, rng)
    torch.testing.assert_close(lanczos.values[0], torch.tensor([2.0, 2, 2, 1]).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependent_columns_and_an_exhausted_krylov_space_become_random_directions(
    rng: torch.Generator, dtype: torch.dtype
):
    matrix = torch.diag(torch.cat([torch.arange(1.0, 4.0), torch.zeros(61)])).to(dtype)
    start = torch.ones(64, 5, dtype=dtype)
    start[:, 3] = 0
    lanczos = run(matrix, start, 3, 20, rng)
    torch.testing.assert_close(lanczos.values[0], torch.tensor([3.0, 2, 1], dtype=dtype), atol=1e-5, rtol=0)
    vectors = lanczos.vectors()[0]
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(3, dtype=dtype), atol=1e-5, rtol=0)


def test_it_starts_unsettled_even_with_a_residual_of_zero(rng: torch.Generator):
    # The start holds eigenvectors, but not the leading one.
    matrix = torch.diag(torch.cat([torch.tensor([5.0, 4.0, 3.0]), torch.ones(61)])).double()
    start = torch.randn(64, 4, generator=rng, dtype=torch.float64)
    start[:, :2] = torch.eye(64, dtype=torch.float64)[:, 1:3]
    lanczos = BlockLanczos(start[None], 2, rng)
    settled = []
    for _ in range(6):
        lanczos.step(lambda vectors: matrix @ vectors)
        settled.append(bool(lanczos.settled(1e-6)))
    assert settled[0] is False
    assert settled[-1] is True
    torch.testing.assert_close(lanczos.values[0], torch.tensor([5.0, 4.0]).double())


def test_a_zero_operator_settles_at_zero(rng: torch.Generator):
    lanczos = run(torch.zeros(64, 64), torch.randn(64, 4, generator=rng), 3, 2, rng)
    assert lanczos.settled(1e-4).all()
    assert not lanczos.values.any()
    assert lanczos.vectors().isfinite().all()


def test_the_prediction_of_steps_follows_the_decline(rng: torch.Generator):
    # Alone ahead of a cluster: every step divides the error by about the same factor.
    values = torch.cat([torch.ones(3), torch.linspace(0, 0.8, 197)]).double()
    matrix = symmetric(values, rng)
    lanczos = BlockLanczos(torch.randn(1, 200, 4, generator=rng, dtype=torch.float64), 3, rng)
    assert run(matrix, torch.eye(200, 4, dtype=torch.float64), 3, 1, rng).steps_left(1e-9) == 1
    predicted = 0.0
    for step in range(1, 40):
        lanczos.step(lambda vectors: matrix @ vectors)
        predicted = lanczos.steps_left(1e-9) if step == 12 else predicted
        if lanczos.settled(1e-9):
            break
    assert predicted == pytest.approx(step - 12, rel=0.5)


def test_operators_of_a_batch_do_not_mix(rng: torch.Generator):
    values = [torch.rand(64, generator=rng, dtype=torch.float64) for _ in range(3)]
    matrices = torch.stack([symmetric(v, rng) for v in values])
    start = torch.randn(3, 64, 8, generator=rng, dtype=torch.float64)
    lanczos = BlockLanczos(start, 2, rng)
    for _ in range(40):
        lanczos.step(lambda vectors: matrices @ vectors)
    expected = torch.stack([v.sort(descending=True).values[:2] for v in values])
    torch.testing.assert_close(lanczos.values, expected, atol=1e-8, rtol=0)
