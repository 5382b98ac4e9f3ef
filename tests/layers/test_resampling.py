from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_blocks import (
    downsample_average,
    downsample_filtered,
    fade_images,
    fade_in,
    upsample_bilinear,
    upsample_nearest,
)
from tests.drawn import draw
from tests.reference import layers as reference

sizes = st.integers(1, 4)
every = pytest.mark.parametrize(
    "resample", [upsample_nearest, upsample_bilinear, downsample_average, downsample_filtered]
)


@given(batch=sizes, channels=sizes, height=sizes, width=sizes)
def test_upsampling_repeats_each_pixel_in_a_square(batch: int, channels: int, height: int, width: int):
    x = draw(batch, channels, height, width)
    np.testing.assert_array_equal(upsample_nearest(x).numpy(), reference.upsample_nearest(x.numpy()))


@given(batch=sizes, channels=sizes, height=sizes, width=sizes)
def test_bilinear_upsampling_interpolates_between_the_centers_of_pixels(
    batch: int, channels: int, height: int, width: int
):
    x = draw(batch, channels, height, width)
    np.testing.assert_allclose(upsample_bilinear(x).numpy(), reference.upsample_bilinear(x.numpy()), atol=1e-14)


def test_bilinear_upsampling_continues_a_slope_and_keeps_constants():
    slope = torch.arange(6, dtype=torch.float64).expand(1, 1, 6, 6)
    inner = upsample_bilinear(slope)[..., 1:-1]
    torch.testing.assert_close(inner.diff(dim=-1), torch.full_like(inner.diff(dim=-1), 0.5))
    constant = torch.full((1, 2, 3, 3), 7.0)
    assert torch.equal(upsample_bilinear(constant), torch.full((1, 2, 6, 6), 7.0))


@given(batch=sizes, channels=sizes, height=sizes, width=sizes)
def test_downsampling_is_the_mean_of_each_square(batch: int, channels: int, height: int, width: int):
    x = draw(batch, channels, 2 * height, 2 * width)
    np.testing.assert_allclose(downsample_average(x).numpy(), reference.downsample_average(x.numpy()), atol=1e-14)


@given(height=sizes, width=sizes)
def test_downsampling_undoes_upsampling(height: int, width: int):
    x = draw(2, 3, height, width)
    torch.testing.assert_close(downsample_average(upsample_nearest(x)), x, rtol=0, atol=1e-15)


def test_the_two_are_adjoint_up_to_the_factor_of_the_mean():
    x, y = draw(2, 3, 4, 6), draw(2, 3, 2, 3, seed=1)
    torch.testing.assert_close((downsample_average(x) * y).sum(), (x * upsample_nearest(y)).sum() / 4)


def smoothed(x: Tensor) -> Tensor:
    """[1, 2, 1] / 4 along both axes, the outermost pixel repeated."""
    for axis in (2, 3):
        length = x.shape[axis]
        before, after = ([min(max(i + step, 0), length - 1) for i in range(length)] for step in (-1, 1))
        x = (x.index_select(axis, torch.tensor(before)) + 2 * x + x.index_select(axis, torch.tensor(after))) / 4
    return x


@given(batch=sizes, channels=sizes, height=sizes, width=sizes)
def test_filtered_resampling_is_the_plain_one_beside_a_filter_of_1_2_1(
    batch: int, channels: int, height: int, width: int
):
    x = draw(batch, channels, 2 * height, 2 * width)
    torch.testing.assert_close(downsample_filtered(x), downsample_average(smoothed(x)), rtol=0, atol=1e-14)
    torch.testing.assert_close(upsample_bilinear(x), smoothed(upsample_nearest(x)), rtol=0, atol=1e-14)


def test_filtered_downsampling_keeps_constants_and_drops_the_finest_pattern():
    assert torch.equal(downsample_filtered(torch.full((1, 2, 4, 6), 7.0)), torch.full((1, 2, 2, 3), 7.0))
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    assert downsample_filtered(stripes)[..., 1:-1].abs().max() < 1e-6


@every
def test_gradients_agree_with_finite_differences(resample: Callable[[Tensor], Tensor]):
    x = draw(2, 2, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(resample, (x,))
    assert torch.autograd.gradgradcheck(resample, (x,))


@every
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_dtype_and_memory_format(
    resample: Callable[[Tensor], Tensor], memory_format: torch.memory_format, dtype: torch.dtype
):
    x = draw(2, 3, 4, 6).to(dtype=dtype, memory_format=memory_format)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = resample(x)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(y.double(), resample(x.double()), rtol=1e-2, atol=1e-2)


@every
def test_compiles_without_graph_breaks_and_runs_on_meta(resample: Callable[[Tensor], Tensor]):
    x = draw(1, 2, 4, 4)
    compiled = torch.compile(resample, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), resample(x))
    assert resample(x.to("meta")).shape == resample(x).shape


@pytest.mark.parametrize("size", [(3, 2), (2, 3), (1, 1), (0, 2)])
def test_downsampling_rejects_odd_sizes(size: tuple[int, int]):
    message = (
        r"^downsample_average: `x` must be of shape \(batch, channels, height, width\) with even height and width, "
        rf"but got x of shape \(1, 2, {size[0]}, {size[1]}\)\.$"
    )
    with pytest.raises(ValueError, match=message):
        downsample_average(torch.zeros(1, 2, *size))


@every
def test_rejects_what_is_not_a_batch_of_feature_maps(resample: Callable[[Tensor], Tensor]):
    message = (
        rf"^{resample.__name__}: `x` must be of shape \(batch, channels, height, width\), "
        r"but got x of shape \(2, 4, 4\)\.$"
    )
    with pytest.raises(ValueError, match=message):
        resample(torch.zeros(2, 4, 4))


@pytest.mark.parametrize("resample", [upsample_bilinear, downsample_average, downsample_filtered])
def test_rejects_whole_numbers_which_it_would_round(resample: Callable[[Tensor], Tensor]):
    message = rf"^{resample.__name__}: `x` must be of a real floating dtype, but got x of dtype torch\.uint8\.$"
    with pytest.raises(TypeError, match=message):
        resample(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


@given(alpha=st.floats(0, 1))
def test_fading_is_the_weighted_mean(alpha: float):
    old, new = draw(2, 3), draw(2, 3, seed=1)
    torch.testing.assert_close(fade_in(old, new, alpha), (1 - alpha) * old + alpha * new)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_fading_is_exact_at_both_ends(dtype: torch.dtype):
    old, new = draw(50).to(dtype), (1e4 * draw(50, seed=1)).to(dtype)
    assert torch.equal(fade_in(old, new, 0.0), old)
    assert torch.equal(fade_in(old, new, 1.0), new)


@given(alpha=st.floats(0, 1), height=sizes, width=sizes)
def test_real_images_fade_like_the_two_resolutions_of_a_generator(alpha: float, height: int, width: int):
    images = draw(2, 3, 2 * height, 2 * width)
    coarse = reference.upsample_nearest(reference.downsample_average(images.numpy()))
    wanted = (1 - alpha) * coarse + alpha * images.numpy()
    np.testing.assert_allclose(fade_images(images, alpha).numpy(), wanted, atol=1e-14)


@given(alpha=st.floats(0, 1))
def test_faded_images_have_the_same_half_resolution(alpha: float):
    images = draw(2, 3, 4, 6)
    torch.testing.assert_close(downsample_average(fade_images(images, alpha)), downsample_average(images))


def test_fading_has_gradients_on_both_paths():
    old, new = draw(2, 3).requires_grad_(), draw(2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda old, new: fade_in(old, new, 0.3), (old, new))
    assert torch.autograd.gradgradcheck(lambda old, new: fade_in(old, new, 0.3), (old, new))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_fading_rejects_weights_outside_their_range(alpha: float):
    with pytest.raises(ValueError, match=rf"^fade_in: `alpha` must be from 0 to 1, but got alpha={alpha}\.$"):
        fade_in(draw(2), draw(2), alpha)


def test_fading_rejects_two_shapes():
    rule = r"^fade_in: `old` must be of shape \(2, 3\), that of new, but got old of shape \(3,\)\.$"
    with pytest.raises(ValueError, match=rule):
        fade_in(draw(3), draw(2, 3), 0.5)
