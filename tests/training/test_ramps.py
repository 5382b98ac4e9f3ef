import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import cosine_ramp, gaussian_ramp, half_life_decay, linear_ramp

values = st.floats(-10, 10)
ramps = pytest.mark.parametrize("ramp", [linear_ramp, cosine_ramp])


@ramps
@given(start=values, end=values, over=st.integers(1, 1000), after=st.integers(0, 1000))
def test_both_ends_are_exact_and_the_end_stays(ramp, start: float, end: float, over: int, after: int):
    assert ramp(0, over, start=start, end=end) == start
    assert ramp(over + after, over, start=start, end=end) == end


@given(start=values, end=values, over=st.integers(1, 1000), share=st.floats(0, 1))
def test_the_values_between_are_those_of_the_formulas(start: float, end: float, over: int, share: float):
    images = round(share * over)
    t = images / over
    assert linear_ramp(images, over, start=start, end=end) == pytest.approx((1 - t) * start + t * end, abs=1e-12)
    wanted = end + (start - end) * (1 + math.cos(math.pi * t)) / 2
    assert cosine_ramp(images, over, start=start, end=end) == pytest.approx(wanted, abs=1e-12)


@given(end=values, over=st.integers(1, 1000), images=st.integers(0, 2000))
def test_the_bell_rises_to_its_end_and_stays(end: float, over: int, images: int):
    wanted = end if images >= over else end * math.exp(-5 * (1 - images / over) ** 2)
    assert gaussian_ramp(images, over, end=end) == pytest.approx(wanted, rel=1e-12)
    assert gaussian_ramp(over + images, over, end=end) == end


@given(half_life=st.integers(1, 10_000), batch_size=st.integers(1, 64))
def test_an_average_forgets_half_in_its_half_life(half_life: int, batch_size: int):
    decay = half_life_decay(half_life, batch_size=batch_size)
    assert decay ** (half_life / batch_size) == pytest.approx(0.5)
    assert half_life_decay(0, batch_size=batch_size) == 0


@pytest.mark.parametrize(
    ("ramp", "ends"),
    [
        (linear_ramp, {"start": 0.0, "end": 1.0}),
        (cosine_ramp, {"start": 0.0, "end": 1.0}),
        (gaussian_ramp, {"end": 1.0}),
    ],
)
def test_rejects_what_is_no_progress(ramp, ends: dict[str, float]):
    with pytest.raises(ValueError, match=rf"^{ramp.__name__}: `over` must be greater than 0, but got over=0\.$"):
        ramp(1, 0, **ends)
    with pytest.raises(ValueError, match=rf"^{ramp.__name__}: `images` must be at least 0, but got images=-1\.$"):
        ramp(-1, 5, **ends)


def test_rejects_half_lives_and_batches_that_there_are_not():
    with pytest.raises(ValueError, match=r"^half_life_decay: `half_life_images` must be at least 0"):
        half_life_decay(-1.0, batch_size=4)
    with pytest.raises(ValueError, match=r"^half_life_decay: `batch_size` must be greater than 0"):
        half_life_decay(10, batch_size=0)
