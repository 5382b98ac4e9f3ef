import dataclasses
import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_blocks import GrowthPosition, GrowthSchedule

SMALL = GrowthSchedule(16, stabilize_images=100, fade_images=60, batch_sizes=((4, 8), (16, 6)))

schedules = st.builds(
    lambda initial, doublings, stabilize, fade, batch: GrowthSchedule(
        4 * 2 ** (initial + doublings),
        initial_resolution=4 * 2**initial,
        stabilize_images=stabilize,
        fade_images=fade,
        batch_sizes=((4, batch), (16, max(1, batch - 3))),
    ),
    initial=st.integers(0, 2),
    doublings=st.integers(0, 3),
    stabilize=st.integers(1, 90),
    fade=st.integers(1, 90),
    batch=st.integers(1, 40),
)


def position_by_the_papers_words(schedule: GrowthSchedule, images: int) -> tuple[int, float]:
    """Walk image by image through what Appendix A.1 tells: start, fade, stabilise, fade, ..."""
    resolution, alpha, fading, left = schedule.initial_resolution, 1.0, False, schedule.stabilize_images
    for _ in range(images):
        left -= 1
        if fading:
            alpha += 1 / schedule.fade_images
        if left == 0 and fading:
            alpha, fading, left = 1.0, False, schedule.stabilize_images
        elif left == 0 and resolution < schedule.final_resolution:
            resolution, alpha, fading, left = 2 * resolution, 0.0, True, schedule.fade_images
    return resolution, alpha


@given(schedule=schedules, images=st.integers(0, 900))
def test_follows_the_words_of_appendix_a(schedule: GrowthSchedule, images: int):
    position = schedule.at(images)
    resolution, alpha = position_by_the_papers_words(schedule, images)
    assert position.resolution == resolution
    assert position.alpha == pytest.approx(alpha, abs=1e-9)


@given(schedule=schedules)
def test_alpha_starts_at_exactly_zero_and_ends_at_exactly_one(schedule: GrowthSchedule):
    start = schedule.stabilize_images
    for before, after in pairwise(schedule.resolutions):
        assert schedule.at(start - 1)[1:3] == (before, 1.0)
        assert schedule.at(start)[1:3] == (after, 0.0)
        assert schedule.at(start + schedule.fade_images)[1:3] == (after, 1.0)
        start += schedule.fade_images + schedule.stabilize_images
    assert schedule.growth_images == start - schedule.stabilize_images
    assert schedule.at(schedule.growth_images)[1:3] == (schedule.final_resolution, 1.0)


def test_published_schedule_for_1024():
    schedule = GrowthSchedule.published(1024)
    assert schedule.at(0) == GrowthPosition(0, 4, 1.0, 16, 0.001)
    assert schedule.at(599_999).resolution == 4
    assert schedule.at(600_000) == GrowthPosition(1, 8, 0.0, 16, 0.001)
    assert schedule.at(900_000) == GrowthPosition(1, 8, 0.5, 16, 0.001)
    assert schedule.at(1_200_000) == GrowthPosition(2, 8, 1.0, 16, 0.001)
    # 600k at the start, and 600k + 600k for each of eight doublings up to the end of the last fade
    assert schedule.growth_images == 9_600_000
    batches = {schedule.at(images).resolution: schedule.at(images).batch_size for images in range(0, 10**7, 600_000)}
    assert batches == {4: 16, 8: 16, 16: 16, 32: 16, 64: 16, 128: 16, 256: 14, 512: 6, 1024: 3}


def test_published_schedule_below_1024():
    schedule = GrowthSchedule.published(256)
    assert schedule.at(799_999).resolution == 4
    assert schedule.at(1_200_000) == GrowthPosition(1, 8, 0.5, 16, 0.001)
    assert schedule.at(10**8) == GrowthPosition(12, 256, 1.0, 14, 0.001)
    assert schedule.growth_images == 6 * 1_600_000


def test_one_resolution_never_grows():
    schedule = GrowthSchedule(64, initial_resolution=64)
    assert schedule.resolutions == (64,)
    assert schedule.growth_images == 0
    for images in (0, 10**9):
        assert schedule.at(images) == GrowthPosition(0, 64, 1.0, 16, 0.001)


def test_learning_rates_may_follow_the_resolution():
    schedule = dataclasses.replace(SMALL, learning_rates=((4, 1e-3), (16, 2e-3)))
    assert [schedule.at(images).learning_rate for images in (0, 259, 260)] == [1e-3, 1e-3, 2e-3]


@given(schedule=schedules, batches_per_step=st.integers(1, 3), step=st.integers(1, 120))
def test_images_before_a_step_are_those_of_walking_there(schedule: GrowthSchedule, batches_per_step: int, step: int):
    seen = 0
    for _ in range(step - 1):
        seen += batches_per_step * schedule.at(seen).batch_size
    assert schedule.images_before(step, batches_per_step=batches_per_step) == seen


@given(schedule=schedules)
def test_phases_count_every_switch(schedule: GrowthSchedule):
    positions = [schedule.at(images) for images in range(schedule.growth_images + 2)]
    for before, after in pairwise(positions):
        grown = after.resolution != before.resolution
        settled = before.alpha < 1 and after.alpha == 1
        # a fade of one image is left as soon as it is entered
        assert after.phase - before.phase == (grown or settled)
        assert after.phase % 2 == (after.alpha < 1)


def test_survives_json():
    values = json.loads(json.dumps(dataclasses.asdict(SMALL)))
    pairs = {name: tuple(map(tuple, values[name])) for name in ("batch_sizes", "learning_rates")}
    assert GrowthSchedule(**{**values, **pairs}) == SMALL


@pytest.mark.parametrize("resolution", [0, 2, 3, 6, 12, 100, -4])
@pytest.mark.parametrize("name", ["final_resolution", "initial_resolution"])
def test_rejects_resolutions_that_are_not_four_doubled(name: str, resolution: int):
    pattern = rf"^GrowthSchedule: `{name}` must be 4 doubled a whole number of times, but got {name}={resolution}\.$"
    with pytest.raises(ValueError, match=pattern):
        GrowthSchedule(**{"final_resolution": 64, name: resolution})


def test_rejects_resolutions_that_are_not_whole():
    with pytest.raises(TypeError, match=r"^GrowthSchedule: `final_resolution` must be a whole number, but got"):
        GrowthSchedule(64.0)


def test_rejects_other_wrong_arguments():
    rule = r"^GrowthSchedule: `initial_resolution` must be at most final_resolution=8, but got initial_resolution=16\.$"
    with pytest.raises(ValueError, match=rule):
        GrowthSchedule(8, initial_resolution=16)
    for name in ("stabilize_images", "fade_images"):
        with pytest.raises(ValueError, match=rf"^GrowthSchedule: `{name}` must be greater than 0, but got {name}=0\.$"):
            GrowthSchedule(8, **{name: 0})
    for name in ("batch_sizes", "learning_rates"):
        for pairs in ((), ((16, 1),), ((4, 1), (4, 2)), ((8, 1), (4, 2))):
            rule = f"GrowthSchedule: `{name}` must be pairs (resolution, value) in growing order from "
            message = f"{rule}initial_resolution=8, but got {name}={pairs!r}."
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                GrowthSchedule(8, initial_resolution=8, **{name: pairs})
        with pytest.raises(ValueError, match=rf"^GrowthSchedule: `{name}` must be pairs with values greater than 0"):
            GrowthSchedule(8, **{name: ((4, 0),)})
    with pytest.raises(
        ValueError, match=r"^GrowthSchedule: `images_seen` must be at least 0, but got images_seen=-1\.$"
    ):
        SMALL.at(-1)
    with pytest.raises(ValueError, match=r"^GrowthSchedule: `step` must be at least 1, but got step=0\.$"):
        SMALL.images_before(0)
    with pytest.raises(ValueError, match=r"^GrowthSchedule: `batches_per_step` must be at least 1, but got"):
        SMALL.images_before(1, batches_per_step=0)
