import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from gan_blocks.spectral.singular_values import _products
from gan_blocks.spectral.singular_values._products import gram_matrix, skinny_product


@pytest.mark.parametrize("shape", [(1, 3, 5), (4, 6, 5), (1, 1300, 900), (1, 90, 12_000)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_product_with_few_vectors_is_the_product(
    rng: torch.Generator, shape: tuple[int, int, int], transposed: bool, dtype: torch.dtype
):
    matrix = torch.randn(shape, generator=rng, dtype=dtype)
    matrix = matrix.mT if transposed else matrix
    vectors = torch.randn(shape[0], matrix.shape[-1], 3, generator=rng, dtype=dtype)
    expected = torch.einsum("bij,bjk->bik", matrix.double(), vectors.double())
    # Summing n terms of about 1 one after the other errs by about n units in the last place of 1.
    rounding = 4 * matrix.shape[-1] * torch.finfo(dtype).eps
    torch.testing.assert_close(skinny_product(matrix, vectors).double(), expected, atol=rounding, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1, 4), (3, 5, 2), (1, 130, 40), (2, 333, 20)])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_gram_matrix_is_the_product_with_the_transpose(
    rng: torch.Generator, shape: tuple[int, int, int], transposed: bool
):
    matrix = torch.randn(shape, generator=rng, dtype=torch.float64)
    matrix = matrix.mT if transposed else matrix
    gram = gram_matrix(matrix)
    torch.testing.assert_close(gram, torch.einsum("bij,bkj->bik", matrix, matrix))
    assert gram.equal(gram.mT)


@pytest.mark.skipif(_products._onednn_product() is None, reason="torch was built without oneDNN")
@pytest.mark.parametrize("layout", ["rows", "columns", "part"])
def test_onednn_gets_no_layout_that_it_is_slow_with(rng: torch.Generator, layout: str, monkeypatch: pytest.MonkeyPatch):
    whole = torch.randn(1, 300, 200, generator=rng)
    matrix = {"rows": whole, "columns": whole.mT, "part": whole[:, :, 20:]}[layout]
    onednn, calls = _products._onednn_product(), 0

    def checked(a: Tensor, b: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        assert a.is_contiguous()
        assert b.is_contiguous() or b.mT.is_contiguous()
        return onednn(a, b)

    monkeypatch.setattr(_products, "_onednn_product", lambda: checked)
    vectors = torch.randn(1, matrix.shape[-1], 4, generator=rng)
    torch.testing.assert_close(skinny_product(matrix, vectors), matrix @ vectors, atol=1e-3, rtol=0)
    torch.testing.assert_close(gram_matrix(matrix), matrix @ matrix.mT, atol=1e-3, rtol=0)
    assert calls > 1


def test_a_product_hands_nan_on():
    matrix = torch.zeros(1, 300, 200)
    matrix[0, 7, 11] = math.nan
    assert skinny_product(matrix, torch.ones(1, 200, 2))[0, 7].isnan().all()
    assert gram_matrix(matrix)[0, 7, 7].isnan()


def test_without_onednn_the_products_are_the_same(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    matrix = torch.randn(1, 300, 200, generator=rng)
    vectors = torch.randn(1, 200, 4, generator=rng)
    fast = skinny_product(matrix, vectors), gram_matrix(matrix)
    with monkeypatch.context() as patch:
        patch.setattr(torch.ops, "mkldnn", SimpleNamespace())
        _products._onednn_product.cache_clear()
        assert _products._onednn_product() is None
        plain = skinny_product(matrix, vectors), gram_matrix(matrix)
    _products._onednn_product.cache_clear()
    torch.testing.assert_close(fast, plain, atol=1e-3, rtol=0)
