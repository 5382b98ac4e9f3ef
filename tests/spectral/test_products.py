import pytest
import torch

from gan_blocks.spectral._products import gram_matrix, skinny_product


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
