import pytest
import torch
from torch import Tensor

from gan_blocks.spectral.fingerprints import agrees, fingerprint, in_narrower_dtype, reference_of
from gan_blocks.spectral.power_iteration import matrix_axes, to_matrix

DTYPES = [torch.float32, torch.float64]


def reference(weight: Tensor, dim: int = 0) -> Tensor:
    matrix = to_matrix(weight, matrix_axes(weight, dim))
    return reference_of(matrix, fingerprint(matrix, weight, dim))


def changed(before: Tensor, after: Tensor, dim: int = 0) -> bool:
    matrix = to_matrix(after, matrix_axes(after, dim))
    return not bool(agrees(fingerprint(matrix, after, dim), reference(before, dim)))


def test_a_fingerprint_is_the_product_with_cosines(rng: torch.Generator):
    weight = torch.randn(3, 5, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(fingerprint(weight, weight, 0), weight @ torch.arange(5.0, dtype=torch.float64).cos())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 4096), (64, 64), (32, 96, 3, 3), (256, 3), (16, 16, 3, 3, 3)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_same_weight_is_known_in_other_memory_formats_thread_counts_and_orders_of_summation(
    shape: tuple[int, ...], dtype: torch.dtype, scale: float, rng: torch.Generator
):
    weight = scale * torch.randn(shape, generator=rng, dtype=dtype)
    others = [weight.clone(), weight.mT.clone().mT]
    if len(shape) == 4:
        others.append(weight.to(memory_format=torch.channels_last))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert not any(changed(weight, other) for other in others)
    finally:
        torch.set_num_threads(threads)
    # Summed one by one, the worst order there is.
    columns = torch.arange(weight[0].numel(), dtype=dtype).cos()
    one_by_one = (weight.flatten(1) * columns).cumsum(dim=1)[:, -1]
    assert agrees(one_by_one, reference(weight))


def test_a_transposed_convolution_is_known_in_channels_last(rng: torch.Generator):
    weight = torch.randn(64, 48, 3, 3, generator=rng)
    assert not changed(weight, weight.to(memory_format=torch.channels_last), dim=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("relative", [1e-3, 1e-5])
def test_a_small_change_of_one_entry_is_seen(dtype: torch.dtype, relative: float, rng: torch.Generator):
    weight = torch.randn(8, 32, generator=rng, dtype=dtype)
    for row, column in ((0, 0), (3, 17), (7, 31)):
        moved = weight.clone()
        moved[row, column] += relative * weight.norm() / torch.tensor(float(column)).cos().abs().item()
        assert changed(weight, moved)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_change_below_rounding_is_not_seen_and_changes_add_up(dtype: torch.dtype, rng: torch.Generator):
    weight = torch.randn(8, 32, generator=rng, dtype=dtype)
    step = weight * torch.finfo(dtype).eps
    assert not changed(weight, weight + step)
    assert changed(weight, weight + 100 * step)


def test_changes_that_a_sum_of_the_columns_would_miss_are_seen(rng: torch.Generator):
    weight = torch.randn(8, 32, generator=rng)
    weight -= weight.mean(dim=1, keepdim=True)
    other = torch.randn(8, 32, generator=rng)
    other -= other.mean(dim=1, keepdim=True)
    swapped = weight[:, [1, 0, *range(2, 32)]]
    for after in (other, swapped, weight.flip(1), weight.flip(0), weight.roll(1, dims=1), -weight):
        assert changed(weight, after)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_differs_from_every_other_and_from_itself(value: float, rng: torch.Generator):
    weight = torch.randn(3, 4, generator=rng)
    broken = weight.clone()
    broken[1, 2] = value
    assert changed(broken, weight)
    assert changed(broken, broken)
    assert changed(weight, broken)
    assert not reference(broken)[1].isnan().any()


def test_a_weight_of_zeros_is_known_and_its_first_value_is_seen():
    zeros = torch.zeros(3, 4)
    assert not changed(zeros, zeros.clone())
    assert changed(zeros, zeros + 1e-15)


def test_an_update_of_few_rows_of_a_large_table_is_seen(rng: torch.Generator):
    table = torch.randn(10_000, 64, generator=rng)
    moved = table.clone()
    moved[17] += 1e-4 * torch.randn(64, generator=rng).sign()
    assert changed(table, moved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_weight_is_known_in_lower_precision_and_another_is_not(dtype: torch.dtype, rng: torch.Generator):
    weight = torch.randn(64, 256, generator=rng)
    narrow = in_narrower_dtype(reference(weight), dtype)
    known, other = (value.to(dtype).float() for value in (weight, weight + 0.1 * torch.randn(64, 256, generator=rng)))
    assert agrees(fingerprint(known, known, 0), narrow)
    assert not agrees(fingerprint(other, other, 0), narrow)


def test_an_unknown_reference_agrees_with_every_weight(rng: torch.Generator):
    weight = torch.randn(3, 4, generator=rng)
    assert agrees(fingerprint(weight, weight, 0), torch.full((2, 3), torch.nan))


def test_stacked_weights_have_the_references_of_each(rng: torch.Generator):
    weights = torch.randn(5, 3, 4, generator=rng)
    together = reference_of(weights, fingerprint(weights, weights[0], 0))
    torch.testing.assert_close(together, torch.stack([reference(weight) for weight in weights]))
