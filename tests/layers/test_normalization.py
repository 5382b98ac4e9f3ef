import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import PixelNorm, pixel_norm
from tests.drawn import draw
from tests.reference import layers as reference

sizes = st.integers(1, 4)


@given(batch=sizes, channels=sizes, height=sizes, width=sizes, eps=st.sampled_from([1e-8, 0.1]))
def test_equals_the_equation_of_section_4_2(batch: int, channels: int, height: int, width: int, eps: float):
    x = draw(batch, channels, height, width)
    np.testing.assert_allclose(pixel_norm(x, eps=eps).numpy(), reference.pixel_norm(x.numpy(), eps), rtol=1e-12)


def test_epsilon_is_inside_the_root():
    """Outside, a vector of 1e-4 would keep nearly its direction at length 1 instead of being damped."""
    x = torch.full((1, 3, 1, 1), 1e-4, dtype=torch.float64)
    torch.testing.assert_close(pixel_norm(x), torch.full_like(x, 1 / math.sqrt(2)), rtol=1e-9, atol=0)


@given(scale=st.floats(0.5, 1e4), seed=st.integers(0, 9))
def test_forgets_the_length_and_keeps_the_direction(scale: float, seed: int):
    x = draw(2, 5, 3, 3, seed=seed)
    y = pixel_norm(x)
    torch.testing.assert_close(y.square().mean(dim=1), torch.ones(2, 3, 3, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(pixel_norm(scale * x), y, rtol=1e-5, atol=1e-6)
    assert torch.equal(y.sign(), x.sign())


def test_puts_latents_on_the_hypersphere():
    z = pixel_norm(draw(8, 512))
    torch.testing.assert_close(z.norm(dim=1), torch.full((8,), 512**0.5, dtype=torch.float64))


def test_zero_stays_zero_with_finite_gradients():
    x = torch.zeros(1, 4, 1, 1, requires_grad=True)
    y = pixel_norm(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad.isfinite().all()


def test_gradients_agree_with_finite_differences():
    x = draw(2, 3, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(pixel_norm, (x,))
    assert torch.autograd.gradgradcheck(pixel_norm, (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_half_precision_neither_overflows_nor_loses_dtype_and_format(dtype: torch.dtype, scale: float):
    x = (draw(2, 8, 4, 4) * scale).to(dtype, memory_format=torch.channels_last)
    y = pixel_norm(x)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.double(), pixel_norm(x.double()), rtol=1e-2, atol=1e-2)


def test_the_module_is_the_function_in_both_modes():
    x, module = draw(2, 3, 2, 2), PixelNorm(eps=0.1)
    assert torch.equal(module(x), pixel_norm(x, eps=0.1))
    assert torch.equal(module.eval()(x), pixel_norm(x, eps=0.1))
    assert not module.state_dict()
    assert repr(module) == "PixelNorm(eps=0.1)"


def test_compiles_without_a_graph_break_and_runs_on_meta():
    x = draw(2, 3, 2, 2)
    torch.testing.assert_close(torch.compile(PixelNorm(), fullgraph=True, backend="eager")(x), pixel_norm(x))
    assert pixel_norm(x.to("meta")).shape == x.shape


def test_rejects_wrong_arguments():
    with pytest.raises(ValueError, match=r"^pixel_norm: `eps` must be greater than 0, but got eps=0\.0\.$"):
        pixel_norm(draw(2, 3), eps=0.0)
    with pytest.raises(ValueError, match=r"^PixelNorm: `eps` must be greater than 0, but got eps=-1\.0\.$"):
        PixelNorm(eps=-1.0)
    rule = r"^pixel_norm: `x` must be of shape \(batch, channels, \.\.\.\), but got x of shape \(3,\)\.$"
    with pytest.raises(ValueError, match=rule):
        pixel_norm(draw(3))
    with pytest.raises(TypeError, match=r"^pixel_norm: `x` must be of a real floating dtype, but got x of dtype"):
        pixel_norm(torch.tensor([[1, 2]]))
