import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gan_blocks.engine.commands import sample
from gan_blocks.engine.commands.sampling import paths as sample_paths
from gan_blocks.engine.sampling.samples import draw_latents, generate, ready_generator
from gan_blocks.engine.sampling.trained import load_trained

SIZE, GAP, SCALE = 16, 2, 4  # of an image, between images, and how much both are enlarged


def cells(picture: Image.Image, rows: int, columns: int) -> np.ndarray:
    """The images (rows, columns, height, width) of a grid at the right edge of a picture."""
    step = (SIZE + GAP) * SCALE
    pixels = np.array(picture.convert("L"))
    grid = pixels[:, pixels.shape[1] - columns * step - GAP * SCALE :]
    assert grid.shape == (rows * step + GAP * SCALE, columns * step + GAP * SCALE)
    inner = grid[GAP * SCALE :: SCALE, GAP * SCALE :: SCALE]
    split = inner.reshape(rows, SIZE + GAP, columns, SIZE + GAP).transpose(0, 2, 1, 3)
    return split[:, :, :SIZE, :SIZE]


def plain(run: Path, numbers: list[int], labels: list[int]) -> np.ndarray:
    """What the samples of these numbers look like when they are drawn as samples."""
    trained = load_trained(run=run, weights=None, device=torch.device("cpu"))
    z = draw_latents(trained.prior, max(numbers) + 1, seed=0)[numbers]
    images: Tensor = generate(ready_generator(trained), z, torch.tensor(labels))
    return ((images[:, 0].clamp(-1, 1) + 1) * 127.5).round().numpy()


def sheet(run: Path, out: Path, *options: str, rows: int = 3, steps: int = 4) -> np.ndarray:
    options = ("--rows", str(rows), "--steps", str(steps), *options)
    assert sample.main(["interpolation", "--run", str(run), "--out", str(out), *options]) == 0
    with Image.open(out) as picture:
        return cells(picture, rows, steps).astype(int)


@pytest.mark.parametrize(
    ("vary", "last_numbers", "last_labels"),
    [("both", [1, 3, 5], [1, 2, 0]), ("classes", [0, 2, 4], [1, 2, 0]), ("latents", [1, 3, 5], [0, 1, 2])],
)
def test_the_ends_of_an_interpolation_are_the_plain_samples(
    vary: str, last_numbers: list[int], last_labels: list[int], tiny_run: Path, tmp_path: Path
):
    images = sheet(tiny_run, tmp_path / "x.png", "--vary", vary)
    assert np.abs(images[:, 0] - plain(tiny_run, [0, 2, 4], [0, 1, 2])).max() <= 1
    assert np.abs(images[:, -1] - plain(tiny_run, last_numbers, last_labels)).max() <= 1
    # Between the ends is something else.
    assert all(not np.array_equal(row[1], row[0]) and not np.array_equal(row[1], row[-1]) for row in images)


def test_an_interpolation_is_the_same_in_any_batch(tiny_run: Path, tmp_path: Path):
    whole = sheet(tiny_run, tmp_path / "a.png", "--truncation", "0.7")
    parts = sheet(tiny_run, tmp_path / "b.png", "--truncation", "0.7", "--batch-size", "1")
    assert np.abs(whole - parts).max() <= 1


def test_named_classes_are_the_stations_of_the_paths(tiny_run: Path, tmp_path: Path):
    images = sheet(tiny_run, tmp_path / "x.png", "--classes", "2", "0", rows=2)
    assert np.abs(images[:, 0] - plain(tiny_run, [0, 2], [2, 0])).max() <= 1
    assert np.abs(images[:, -1] - plain(tiny_run, [1, 3], [0, 2])).max() <= 1


@pytest.mark.slow
def test_the_straight_path_is_another_one(tiny_run: Path, tmp_path: Path):
    straight = sheet(tiny_run, tmp_path / "a.png", "--path", "linear")
    circle = sheet(tiny_run, tmp_path / "b.png", "--path", "spherical")
    assert np.array_equal(straight[:, [0, -1]], circle[:, [0, -1]])
    assert not np.array_equal(straight, circle)


@pytest.mark.parametrize("suffix", [".gif", ".apng"])
def test_a_film_goes_there_and_back(suffix: str, tiny_run: Path, tmp_path: Path):
    out = tmp_path / f"film{suffix}"
    options = ["--rows", "2", "--steps", "4", "--vary", "latents", "--fps", "10", "--out", str(out)]
    assert sample.main(["interpolation", "--run", str(tiny_run), *options]) == 0
    images = sheet(tiny_run, tmp_path / "x.png", "--vary", "latents", rows=2)
    with Image.open(out) as film:
        assert film.n_frames == 2 * 4 - 2
        for number, step in enumerate([0, 1, 2, 3, 2, 1]):
            film.seek(number)
            frame = cells(film, 1, 2)[0]
            assert np.array_equal(frame, images[:, step])


def test_a_walk_has_its_frames_and_each_is_the_same_in_any_batch(tiny_run: Path, tmp_path: Path):
    frames = []
    for size in ("64", "1"):
        out = tmp_path / f"{size}.apng"
        options = ["--num", "2", "--seconds", "0.8", "--fps", "10", "--smoothing", "0.1", "--batch-size", size]
        assert sample.main(["walk", "--run", str(tiny_run), "--out", str(out), *options]) == 0
        with Image.open(out) as film:
            assert film.n_frames == 8
            frames.append([])
            for number in range(8):
                film.seek(number)
                frames[-1].append(cells(film, 1, 2)[0].astype(int))
    assert np.abs(np.array(frames[0]) - np.array(frames[1])).max() <= 1


def test_drawing_changes_nothing_in_the_run(tiny_run: Path, tmp_path: Path):
    def state() -> dict[str, str]:
        files = sorted(path for path in tiny_run.rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before, random = state(), torch.get_rng_state()
    sheet(tiny_run, tmp_path / "x.png")
    assert state() == before
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["interpolation", "--rows", "0"], "--rows must be at least 1, but got 0."),
        (["interpolation", "--steps", "1"], "--steps must be at least 2, but got 1."),
        (["interpolation", "--out", "x.npz"], "--out must end in .png, .gif or .apng, but got x.npz."),
        (["interpolation", "--fps", "9"], "--fps is for a film (.gif or .apng), but --out is interpolation.png."),
        (["interpolation", "--out", "x.gif", "--fps", "90"], "--fps must lie in 1 to 50, but got 90."),
        (
            ["interpolation", "--vary", "classes", "--path", "linear"],
            "--path linear is the path of z, but --vary classes holds z constant.",
        ),
        (
            ["interpolation", "--vary", "classes", "--classes", "1"],
            "--vary classes needs two classes or more, but --classes is 1 alone.",
        ),
        (
            ["interpolation", "--classes", "0", "3"],
            "--classes must be names of classes or numbers from 0 to 2, but got 3.",
        ),
        (["walk", "--out", "x.png"], "--out must end in .gif or .apng, but got x.png."),
        (["walk", "--num", "0"], "--num must be at least 1, but got 0."),
        (["walk", "--fps", "0"], "--fps must lie in 1 to 50, but got 0."),
        *(
            (
                ["walk", "--seconds", seconds],
                f"--seconds must be greater than 0, for a film of at most 10,000 frames, but got {seconds} at 20 "
                "frames a second.",
            )
            for seconds in ("inf", "nan", "501", "0")
        ),
        (
            ["walk", "--smoothing", "3"],
            "--smoothing must be greater than 0 and at most a quarter of --seconds, or hardly anything moves, "
            "but got --smoothing 3 and --seconds 10.",
        ),
    ],
)
def test_what_cannot_work_ends_with_one_line_and_status_2(
    words: list[str], message: str, tiny_run: Path, capfd: pytest.CaptureFixture[str]
):
    capfd.readouterr()
    assert sample.main([words[0], "--run", str(tiny_run), *words[1:]]) == 2
    assert capfd.readouterr().err == f"sample: error: {message}\n"


def test_a_generator_that_cannot_mix_classes_says_what_to_do(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plain_generate = sample_paths.generate

    def generate_of_labels(model: object, z: Tensor, classes: Tensor, **options: object) -> Tensor:
        if classes.is_floating_point():
            raise RuntimeError("Expected tensor for argument #1 'indices' to have scalar type Long")
        return plain_generate(model, z, classes, **options)

    monkeypatch.setattr(sample_paths, "generate", generate_of_labels)
    words = ["interpolation", "--run", str(tiny_run), "--out", str(tmp_path / "x.png"), "--rows", "1", "--steps", "2"]
    assert sample.main(words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("sample: error: this generator cannot mix classes: its forward has to take labels as rows")
    assert sample.main([*words, "--vary", "latents"]) == 0
