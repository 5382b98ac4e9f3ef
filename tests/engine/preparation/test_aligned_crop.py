import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gan_blocks.engine.preparation.aligned_crop import FacePoints, aligned_crop, crop_rectangle
from tests.reference import aligned_crop as reference

UPRIGHT = FacePoints((40, 50), (60, 50), (42, 80), (58, 80))
# Wherever a crop of this picture is taken, its two channels say from where: column and row.
PLACES = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1).astype(np.uint8)


def moved(points: FacePoints, by: complex, *, about: complex = 0, to: complex = 0) -> FacePoints:
    """Turn and scale points by a complex number about a point, which moves."""
    numbers = [(complex(*point) - about) * by + to for point in points]
    return FacePoints(*((number.real, number.imag) for number in numbers))


def as_complex(points: FacePoints) -> tuple[complex, complex, complex, complex]:
    e0, e1, m0, m1 = (complex(*point) for point in points)
    return e0, e1, m0, m1


def test_an_upright_face_gives_the_square_that_one_computes_by_hand():
    center, size, x, y = crop_rectangle(UPRIGHT)
    assert center.tolist() == [50, 53]  # the eyes' middle, a tenth of the way of 30 pixels down to the mouth
    assert size == pytest.approx(108)  # 3.6 times 30, which is more than 4 times 20
    assert x.tolist() == [1, 0]
    assert y.tolist() == [0, -1]  # up
    wide = crop_rectangle(FacePoints((20, 50), (80, 50), (42, 80), (58, 80)))
    assert wide.size == 240


point = st.tuples(st.floats(-100, 100), st.floats(-100, 100))


@given(points=st.builds(FacePoints, point, point, point, point))
def test_any_landmarks_give_the_square_of_the_equations(points: FacePoints):
    try:
        center, size, x, y = reference.rectangle(*as_complex(points))
    except ZeroDivisionError:
        return
    try:
        found = crop_rectangle(points)
    except ValueError:
        return  # nearly no direction
    assert complex(*found.center) == pytest.approx(center)
    assert found.size == pytest.approx(size)
    assert complex(*found.x) == pytest.approx(x, abs=1e-7)
    assert complex(*found.y) == pytest.approx(y, abs=1e-7)


@given(angle=st.floats(0, 2 * math.pi), scale=st.floats(0.1, 10), shift=point)
def test_the_square_turns_grows_and_moves_with_the_face(angle: float, scale: float, shift: tuple[float, float]):
    by, to = scale * complex(math.cos(angle), math.sin(angle)), complex(*shift)
    before, after = crop_rectangle(UPRIGHT), crop_rectangle(moved(UPRIGHT, by, to=to))
    assert complex(*after.center) == pytest.approx(complex(*before.center) * by + to)
    assert after.size == pytest.approx(before.size * scale)
    assert complex(*after.x) * scale == pytest.approx(complex(*before.x) * by)
    assert complex(*after.y) * scale == pytest.approx(complex(*before.y) * by)


@pytest.mark.parametrize("angle", [0, 10, 45, 90, 137, 180, 270])
@pytest.mark.parametrize("resolution", [16, 54])
def test_every_pixel_of_a_turned_crop_comes_from_its_place(angle: int, resolution: int):
    turn = complex(math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    points = moved(UPRIGHT, turn, about=50 + 53j, to=131.25 + 120.5j)  # the crop of side 108 lies inside at any angle
    crop = aligned_crop(PLACES, points, resolution)
    assert crop.shape == (2, resolution, resolution)
    for row in range(resolution):
        for column in range(resolution):
            offset = complex((column + 0.5) / resolution - 0.5, (row + 0.5) / resolution - 0.5) * 108
            place = 131.25 + 120.5j + offset * turn
            assert abs(complex(*crop[:, row, column]).real - place.real) <= 0.5 + 1e-3
            assert abs(complex(*crop[:, row, column]).imag - place.imag) <= 0.5 + 1e-3


def test_a_square_that_is_the_whole_image_is_averaged_over_its_pixels():
    # The middle of the image is at 127.5; a side of 256 needs eyes 64 apart, whose middle is a tenth above the mouth's.
    points = FacePoints((95.5, 126.5), (159.5, 126.5), (120, 136.5), (135, 136.5))
    assert crop_rectangle(points).size == 256
    crop = aligned_crop(PLACES, points, 64)
    blocks = PLACES.reshape(64, 4, 64, 4, 2).mean(axis=(1, 3)).transpose(2, 0, 1)  # halves, which round up
    inner = slice(1, -1)  # at the border bilinear samples look at mirrored pixels
    assert np.abs(crop - blocks)[:, inner, inner].max() <= 0.5


def random_gray(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    ("side", "points", "resolution"),
    [
        ((40, 36), FacePoints((14, 17), (21, 18.5), (15, 25), (20, 26)), 5),  # inside
        ((30, 26), FacePoints((11, 14), (17, 12), (13, 20), (18, 19)), 7),  # a corner or two outside
        ((12, 17), FacePoints((6, 3), (11, 4), (5, 9), (10, 10)), 6),  # beyond all borders
        ((9, 8), FacePoints((2, 3), (6, 2), (3, 8), (6, 7)), 4),  # mirrored more than once
        ((50, 50), FacePoints((24, 24), (33, 28), (22, 38), (28, 40)), 3),  # more than four samples a pixel
        ((1, 5), FacePoints((1, 0), (3, 0), (1, 0), (3, 0)), 4),  # a single row
    ],
)
def test_the_crop_equals_the_equations_computed_with_loops(side: tuple[int, int], points: FacePoints, resolution: int):
    image = random_gray(*side)
    wanted = reference.crop(image[..., 0].tolist(), as_complex(points), resolution)
    found = aligned_crop(image, points, resolution)[0]
    assert np.abs(found - np.array(wanted)).max() <= 0.5 + 1e-3


def test_a_turned_image_with_turned_landmarks_gives_the_same_crop():
    image = random_gray(90, 100)
    wanted = aligned_crop(image, UPRIGHT, 24)
    # A quarter turn against the clock takes the pixel (x, y) of an image of width 100 to (y, 99 - x).
    turned = FacePoints(*((y, 99 - x) for x, y in UPRIGHT))
    found = aligned_crop(np.rot90(image).copy(), turned, 24)
    assert np.abs(found.astype(int) - wanted).max() <= 1  # sums in another order may round differently


def test_outside_the_image_there_is_less_detail_the_further_the_smoother():
    image = random_gray(64, 64)
    points = moved(UPRIGHT, 0.8, about=50 + 53j, to=8 + 32j)  # the left third of a crop of side 86 is outside
    crop = aligned_crop(image, points, 86)[0].astype(float)
    detail = np.abs(np.diff(crop[20:66], axis=0)).mean(axis=0)
    bands = [detail[start : start + 8].mean() for start in (16, 24, 36)]  # from the far outside to the inside
    assert all(outer < inner for outer, inner in pairwise(bands))


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (FacePoints((5, 5), (5, 5), (5, 5), (5, 5)), "the landmarks give no direction"),
        (FacePoints((math.nan, 5), (8, 5), (5, 9), (8, 9)), "the landmarks give no direction"),
        (FacePoints((4, 5), (6, 5), (4, 3), (6, 3)), "the landmarks give no direction"),  # upside down, and as wide
        (FacePoints((40, 50), (60, 50), (42, 80), (58, 80)), "the landmarks do not fit into the image"),
        (FacePoints((-30, 10), (50, 10), (0, 20), (20, 20)), "the landmarks do not fit into the image"),
    ],
)
def test_landmarks_without_a_crop_say_why(points: FacePoints, why: str):
    with pytest.raises(ValueError, match=f"^{why}$"):
        aligned_crop(random_gray(20, 20), points, 8)
