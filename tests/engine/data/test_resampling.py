from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_blocks.engine.data.resampling import area_resample, area_resample_planes
from tests.reference import area_resampling as reference


def random_square(side: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)


@settings(max_examples=20)
@given(side=st.integers(1, 9), data=st.data())
def test_every_pixel_is_the_exact_mean_of_the_area_it_covers(side: int, data: st.DataObject):
    size = data.draw(st.integers(1, side))
    pixels = random_square(side, 1, seed=data.draw(st.integers(0, 1000)))
    assert area_resample(pixels, size)[..., 0].tolist() == reference.area_resample(pixels[..., 0].tolist(), size)


def test_a_pixel_shared_by_two_windows_counts_half_in_each():
    column = np.array([0, 90, 0], np.uint8)
    pixels = np.broadcast_to(column[:, None, None], (3, 3, 1)).copy()
    # Pillow's BOX filter says 45: it takes the shared pixel whole.
    assert area_resample(pixels, 2)[..., 0].tolist() == [[30, 30], [30, 30]]


def test_a_whole_factor_is_the_mean_of_blocks():
    pixels = random_square(40, 3)
    blocks = pixels.reshape(10, 4, 10, 4, 3).astype(np.int64).sum(axis=(1, 3))
    assert np.array_equal(area_resample(pixels, 10), (blocks + 8) // 16)


def test_channels_rows_and_columns_stay_apart():
    for side, size in ((21, 8), (301, 160)):
        pixels = random_square(side, 3)
        together = area_resample(pixels, size)
        for channel in range(3):
            alone = area_resample(pixels[..., channel : channel + 1], size)[..., 0]
            assert np.array_equal(together[..., channel], alone)
        assert np.array_equal(area_resample(pixels.swapaxes(0, 1), size), together.swapaxes(0, 1))


@pytest.mark.parametrize(("side", "size"), [(700, 100), (701, 19), (33, 32), (5, 5)])
def test_a_plain_image_keeps_its_level_however_large(side: int, size: int):
    assert (area_resample(np.full((side, side, 3), 255, np.uint8), size) == 255).all()


def by_whole_numbers(pixels: np.ndarray, size: int) -> np.ndarray:
    side = len(pixels)
    pixel, window = np.arange(side), np.arange(size)[:, None]
    cover = np.minimum((pixel + 1) * size, (window + 1) * side) - np.maximum(pixel * size, window * side)
    cover = cover.clip(min=0).astype(np.int64)
    return (2 * (cover @ pixels.astype(np.int64) @ cover.T) + side**2) // (2 * side**2)


@pytest.mark.parametrize("side", [361, 362, 363, 500])
@pytest.mark.parametrize("size", [1, 7, 128, 250, 331])
def test_sums_are_exact_on_both_sides_of_what_float32_holds(side: int, size: int):
    black_and_white = 255 * (random_square(side, 1)[..., 0] > 250).astype(np.uint8)
    for pixels in (random_square(side, 1)[..., 0], black_and_white, 255 - black_and_white):
        assert np.array_equal(area_resample_planes(pixels[None], size)[0], by_whole_numbers(pixels, size))


def test_threads_do_not_share_the_memory_that_is_used_again():
    images = [random_square(side, 3, seed=side) for side in range(40, 120)]
    expected = [area_resample(image, 17) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for number, got in enumerate(pool.map(partial(area_resample, size=17), images * 5)):
            assert np.array_equal(got, expected[number % len(images)])


@pytest.mark.parametrize(("shape", "size"), [((4, 5, 1), 2), ((4, 4, 1), 5), ((4, 4, 1), 0)])
def test_rejects_what_it_cannot_shrink(shape: tuple[int, ...], size: int):
    with pytest.raises(ValueError, match=r"^area_resample: cannot shrink pixels of shape \(4, \d, 1\) to size=\d\.$"):
        area_resample(np.zeros(shape, np.uint8), size)
