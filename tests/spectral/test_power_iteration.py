import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks.spectral.power_iteration import (
    matrix_axes,
    power_step,
    random_rows,
    to_matrix,
    to_memory_order,
    to_torch_order,
)
from tests.drawn import draw
from tests.reference import spectral as reference

sizes = st.integers(2, 6)


@given(out=sizes, rest=sizes, seed=st.integers(0, 99))
def test_a_step_with_one_vector_is_that_of_the_paper(out: int, rest: int, seed: int):
    matrix, start = draw(out, rest, seed=seed), draw(1, out, seed=seed + 1)
    u, v = power_step(matrix, start, torch.zeros(1, rest, dtype=torch.float64))
    expected_u, expected_v = reference.power_step(matrix.numpy(), start[0].numpy())
    np.testing.assert_allclose(u[0], expected_u, atol=1e-12)
    np.testing.assert_allclose(v[0], expected_v, atol=1e-12)


@given(out=sizes, rest=sizes, count=st.integers(2, 3), seed=st.integers(0, 99))
def test_a_block_step_gives_sorted_pairs_with_the_best_values_in_their_span(out: int, rest: int, count: int, seed: int):
    count = min(count, out, rest)
    matrix = draw(out, rest, seed=seed)
    start = random_rows(count, out, like=matrix, generator=torch.Generator().manual_seed(seed))
    u, v = power_step(matrix, start, torch.zeros(count, rest, dtype=torch.float64))
    values = u @ matrix @ v.mT
    torch.testing.assert_close(u @ u.mT, torch.eye(count, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(v @ v.mT, torch.eye(count, dtype=torch.float64), atol=1e-12, rtol=0)
    expected = torch.from_numpy(reference.ritz_values(matrix.numpy(), start.numpy()))
    torch.testing.assert_close(values, torch.diag(expected), atol=1e-12, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_a_stack_of_matrices_steps_like_each_alone(count: int):
    matrices, us, vs = draw(4, 5, 7), draw(4, count, 5, seed=1), draw(4, count, 7, seed=2)
    together = power_step(matrices, us, vs)
    for index in range(4):
        alone = power_step(matrices[index], us[index], vs[index])
        torch.testing.assert_close((together[0][index], together[1][index]), alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_zeros_and_nans_leave_the_vectors_as_they_were(count: int, value: float):
    matrix = torch.full((3, 4), value)
    u, v = (random_rows(count, size, like=matrix, generator=None) for size in (3, 4))
    new_u, new_v = power_step(matrix, u, v)
    assert torch.equal(new_u, u)
    assert torch.equal(new_v, v)


def test_a_matrix_far_below_eps_still_gives_unit_vectors():
    u, v = power_step(draw(3, 4).float() * 1e-12, torch.ones(1, 3), torch.zeros(1, 4))
    assert u.norm().item() == pytest.approx(1, abs=1e-6)
    assert v.norm().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "dim", "memory_format"),
    [
        ((4, 3), 0, torch.contiguous_format),
        ((4, 3, 2), 1, torch.contiguous_format),
        ((4, 3, 2, 5), 0, torch.channels_last),
        ((4, 3, 2, 5), 1, torch.channels_last),
        ((32, 33, 2, 5), 0, torch.channels_last),
        ((32, 33, 2, 5), 1, torch.channels_last),
        ((4, 3, 1, 1), 0, torch.channels_last),
        ((4, 3, 2, 2, 5), 0, torch.channels_last_3d),
    ],
)
def test_the_matrix_and_its_vectors_agree_with_torch_order_in_every_memory_format(shape, dim, memory_format):
    weight = draw(*shape).contiguous(memory_format=memory_format)
    plain = torch.from_numpy(reference.as_matrix(weight.numpy(), dim))
    axes = matrix_axes(weight, dim)
    v = draw(2, plain.shape[1], seed=1)
    product = to_matrix(weight, axes) @ to_memory_order(v, weight, axes).mT
    torch.testing.assert_close(product, plain @ v.mT, atol=1e-12, rtol=0)
    assert torch.equal(to_torch_order(to_memory_order(v, weight, axes), weight, axes), v)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_large_convolution_weight_becomes_a_matrix_without_a_copy(memory_format: torch.memory_format):
    weight = draw(32, 32, 3, 3).contiguous(memory_format=memory_format)
    assert to_matrix(weight, matrix_axes(weight, 0)).data_ptr() == weight.data_ptr()


def test_random_rows_are_orthonormal_and_drawn_from_the_generator_alone():
    state = torch.get_rng_state()
    first, second = (
        random_rows(3, 5, like=torch.zeros(1, dtype=torch.bfloat16), generator=torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    assert first.dtype == torch.float32
    torch.testing.assert_close(first @ first.mT, torch.eye(3))
