import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import TopKSchedule
from tests.reference import top_k as reference


@given(
    batch_size=st.integers(1, 300),
    gamma=st.floats(0.3, 1),
    share=st.floats(0.01, 1),
    decays=st.integers(0, 60),
)
def test_k_is_the_papers_recursion_kept_real_and_floored(batch_size: int, gamma: float, share: float, decays: int):
    schedule = TopKSchedule(batch_size=batch_size, gamma=gamma, floor_share=share, decay_steps=10)
    exact = reference.annealed_k(batch_size, gamma, share * batch_size, decays)
    # Where the real k is an integer up to rounding, either side of it would do for the reference.
    expected = {max(1, math.floor(exact * (1 + error))) for error in (-1e-10, 1e-10)}
    assert schedule.k(steps=10 * decays) in expected
    assert schedule.k(steps=10 * decays + 9) == schedule.k(steps=10 * decays)


def test_k_does_not_stall_where_rounding_at_each_decay_would():
    schedule = TopKSchedule(batch_size=64, gamma=0.99, floor_share=0.5, decay_steps=1)
    assert schedule.k(steps=1000) == 32
    assert min(step for step in range(1000) if schedule.k(steps=step) == 32) == 66  # 64 * 0.99^66 = 32.97


def test_rounding_costs_no_sample_where_a_product_of_decimals_is_an_integer():
    assert TopKSchedule(batch_size=100, gamma=0.1, floor_share=0.57, decay_steps=1).k(steps=9) == 57
    assert TopKSchedule(batch_size=100, gamma=0.57, floor=1, decay_steps=1).k(steps=1) == 57


def test_k_starts_at_the_batch_and_reaches_the_floor_given_as_a_number():
    schedule = TopKSchedule(batch_size=128, gamma=0.9, floor=50, decay_steps=100)
    assert schedule.k(steps=0) == 128
    assert schedule.k(steps=10**9) == 50


def test_k_decays_by_images_seen_whatever_the_batches():
    schedule = TopKSchedule(batch_size=100, gamma=0.5, floor=1, decay_images=50_000)
    assert [schedule.k(images=images) for images in (0, 49_999, 50_000, 100_000)] == [100, 100, 50, 25]


def test_a_gamma_of_one_keeps_the_whole_batch():
    schedule = TopKSchedule(batch_size=7, gamma=1, floor_share=0.5, decay_steps=1)
    assert {schedule.k(steps=steps) for steps in range(0, 10_000, 97)} == {7}


def test_k_is_never_zero():
    assert TopKSchedule(batch_size=4, gamma=0.1, floor_share=0.01, decay_steps=1).k(steps=500) == 1


def test_a_schedule_goes_through_json():
    schedule = TopKSchedule(batch_size=256, gamma=0.99, floor_share=0.75, decay_steps=2000)
    assert TopKSchedule(**json.loads(json.dumps(asdict(schedule)))) == schedule


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be greater than 0, but got batch_size=0."),
        ({"gamma": 0.0}, "`gamma` must be greater than 0 and at most 1, but got gamma=0.0."),
        ({"gamma": 1.01}, "`gamma` must be greater than 0 and at most 1, but got gamma=1.01."),
        ({"gamma": math.nan}, "`gamma` must be greater than 0 and at most 1, but got gamma=nan."),
        ({"floor": 65}, "`floor` must be from 1 to batch_size=64, but got floor=65."),
        ({"floor": 0}, "`floor` must be from 1 to batch_size=64, but got floor=0."),
        (
            {"floor": None, "floor_share": 1.5},
            "`floor_share` must be greater than 0 and at most 1, but got floor_share=1.5.",
        ),
        ({"decay_steps": 0}, "`decay_steps` must be at least 1, but got decay_steps=0."),
        ({"decay_steps": None, "decay_images": 0}, "`decay_images` must be at least 1, but got decay_images=0."),
    ],
)
def test_rejects_what_is_out_of_range(change: dict[str, object], message: str):
    arguments = {"batch_size": 64, "gamma": 0.9, "floor": 32, "decay_steps": 10, **change}
    with pytest.raises(ValueError, match=r"^TopKSchedule: ") as error:
        TopKSchedule(**arguments)
    assert str(error.value) == f"TopKSchedule: {message}"


def test_rejects_two_floors_or_none_and_two_clocks_or_none():
    for change, names in (
        ({"floor_share": 0.5}, "`floor` and `floor_share`"),
        ({"floor": None}, "`floor` and `floor_share`"),
        ({"decay_images": 5}, "`decay_steps` and `decay_images`"),
        ({"decay_steps": None}, "`decay_steps` and `decay_images`"),
    ):
        with pytest.raises(ValueError, match=f"^TopKSchedule: exactly one of {names} must be given, but got "):
            TopKSchedule(**{"batch_size": 64, "floor": 32, "decay_steps": 10, **change})


def test_rejects_a_batch_that_is_not_whole():
    with pytest.raises(TypeError, match=r"^TopKSchedule: `batch_size` must be a whole number, but got"):
        TopKSchedule(batch_size=0.5, floor_share=0.5, decay_steps=10)


def test_rejects_the_wrong_clock():
    by_steps = TopKSchedule(batch_size=64, floor=32, decay_steps=10)
    by_images = TopKSchedule(batch_size=64, floor=32, decay_images=500)
    message = r"^TopKSchedule\.k: only `steps` may be given, because k decays every 10 steps\.$"
    for clocks in ({}, {"images": 3}, {"steps": 3, "images": 3}):
        with pytest.raises(ValueError, match=message):
            by_steps.k(**clocks)
    with pytest.raises(ValueError, match=r"^TopKSchedule\.k: only `images` may be given, because k decays every 500"):
        by_images.k(steps=3)
    with pytest.raises(ValueError, match=r"^TopKSchedule\.k: `steps` must be at least 0, but got steps=-1\.$"):
        by_steps.k(steps=-1)


@pytest.mark.parametrize(("images", "rule"), [(math.nan, "at least 0"), (math.inf, "finite")])
def test_a_clock_without_a_time_is_refused(images: float, rule: str):
    schedule = TopKSchedule(batch_size=8, floor=4, decay_images=10)
    with pytest.raises(ValueError, match=rf"^TopKSchedule.k: `images` must be {rule}, but got images={images}\.$"):
        schedule.k(images=images)
