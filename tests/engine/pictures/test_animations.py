from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.pictures.animations import check_frames_per_second, save_animation


def noise(count: int, mode: str) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shape = (12, 10) if mode == "L" else (12, 10, 3)
    return [Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)) for _ in range(count)]


def read(path: Path) -> list[Image.Image]:
    with Image.open(path) as film:
        frames = []
        for number in range(film.n_frames):
            film.seek(number)
            frames.append(film.convert("RGB"))
        return frames


@pytest.mark.parametrize(("name", "mode"), [("x.gif", "L"), ("x.apng", "L"), ("x.apng", "RGB")])
def test_a_film_holds_its_frames_in_order_and_without_loss(name: str, mode: str, tmp_path: Path):
    frames = noise(7, mode)
    save_animation(tmp_path / "new" / name, frames, fps=10)
    back = read(tmp_path / "new" / name)
    assert len(back) == 7
    assert all(np.array_equal(a, b.convert("RGB")) for a, b in zip(back, frames, strict=True))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_a_gif_of_colors_has_its_frames(tmp_path: Path):
    save_animation(tmp_path / "x.gif", noise(4, "RGB"), fps=10)
    assert len(read(tmp_path / "x.gif")) == 4


@pytest.mark.parametrize(("name", "fps", "expected"), [("x.gif", 30, 30), ("x.gif", 15, 70), ("x.apng", 8, 125)])
def test_a_frame_lasts_as_long_as_its_format_can_say(name: str, fps: float, expected: int, tmp_path: Path):
    save_animation(tmp_path / name, noise(3, "L"), fps=fps)
    with Image.open(tmp_path / name) as film:
        film.seek(1)
        assert film.info["duration"] == expected
        assert film.info["loop"] == 0


@pytest.mark.parametrize("fps", [0, 51, float("nan")])
def test_rejects_a_frame_rate_that_no_program_shows(fps: float):
    with pytest.raises(UserError, match=rf"^--fps must lie in 1 to 50, but got {fps:g}\.$"):
        check_frames_per_second(fps)
