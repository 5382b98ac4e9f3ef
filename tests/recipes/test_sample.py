from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recipes import biggan_deep, sample


@pytest.fixture
def run(tiny_args: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "run"
    assert biggan_deep.main([*tiny_args, "--run-dir", str(path), "--steps", "3"]) == 0
    return path


def draw(run: Path, out: Path, *options: str) -> tuple[np.ndarray, np.ndarray]:
    assert sample.main(["--run", str(run), "--out", str(out), *options]) == 0
    with np.load(out) as arrays:
        return arrays["images"], arrays["labels"]


def test_npz_holds_uint8_nhwc_images_and_evenly_spread_labels(run: Path, tmp_path: Path):
    images, labels = draw(run, tmp_path / "out.npz", "--num", "7")
    assert images.dtype == np.uint8
    assert images.shape == (7, 16, 16, 1)
    assert labels.tolist() == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("truncation", [[], ["--truncation", "0.5"]])
def test_a_sample_is_the_same_in_any_batch(truncation: list[str], run: Path):
    """Seed, class and truncation fix a sample to 1e-5, whatever batch it is drawn in."""
    from recipes._engine.sampling import draw_latents, generate, sampling_generator
    from recipes._engine.trained import load_trained

    trained = load_trained(run=run, weights=None, device=torch.device("cpu"))
    limit = float(truncation[1]) if truncation else None
    model = sampling_generator(trained.average, trained.prior, trained.config, truncation=limit)
    z = draw_latents(trained.prior, 12, seed=3, truncation=limit)
    assert torch.equal(draw_latents(trained.prior, 5, seed=3, truncation=limit), z[:5])
    labels = torch.tensor([1] * 12)
    whole = generate(model, z, labels, batch_size=12)
    for size in (1, 5):
        assert (generate(model, z, labels, batch_size=size) - whole).abs().max() <= 1e-5


def test_the_seed_and_the_truncation_change_the_samples(run: Path, tmp_path: Path):
    plain, _ = draw(run, tmp_path / "a.npz", "--num", "3")
    again, _ = draw(run, tmp_path / "b.npz", "--num", "3", "--batch-size", "1")
    other, _ = draw(run, tmp_path / "c.npz", "--num", "3", "--seed", "1")
    truncated, _ = draw(run, tmp_path / "d.npz", "--num", "3", "--truncation", "0.1")
    assert np.abs(plain.astype(int) - again).max() <= 1
    assert not np.array_equal(plain, other)
    assert not np.array_equal(plain, truncated)


def test_truncation_draws_no_component_beyond_the_threshold(run: Path):
    from recipes._engine.sampling import draw_latents

    prior = biggan_deep.build_prior(biggan_deep.Config())
    z = draw_latents(prior, 50, seed=0, truncation=0.5)
    assert z.abs().max() <= 0.5
    assert draw_latents(prior, 50, seed=0).abs().max() > 2


def test_named_classes_are_drawn_in_their_order(run: Path, tmp_path: Path):
    _, labels = draw(run, tmp_path / "out.npz", "--num", "4", "--classes", "2", "0")
    assert labels.tolist() == [2, 2, 0, 0]


def test_a_weights_file_alone_is_enough(run: Path, tmp_path: Path):
    weights = run / "checkpoints" / "step_000003" / "ema.safetensors"
    alone = tmp_path / "elsewhere.safetensors"
    alone.write_bytes(weights.read_bytes())
    assert sample.main(["--weights", str(alone), "--num", "3", "--out", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as arrays:
        assert np.array_equal(arrays["images"], draw(run, tmp_path / "run.npz", "--num", "3")[0])


def test_a_grid_has_one_row_a_class(run: Path, tmp_path: Path):
    assert sample.main(["--run", str(run), "--num", "12", "--out", str(tmp_path / "grid.png")]) == 0
    with Image.open(tmp_path / "grid.png") as grid:
        width, height = grid.size
    assert width / 4 == pytest.approx(height / 3, rel=0.05)


def test_a_folder_gets_one_png_a_sample(run: Path, tmp_path: Path):
    assert sample.main(["--run", str(run), "--num", "3", "--out", str(tmp_path / "images")]) == 0
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == [f"{number:06d}_class_{number}.png" for number in range(3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num", "0"], "--num must be at least 1, but got 0."),
        (["--truncation", "0"], "--truncation must be greater than 0, but got 0.0."),
        (["--classes", "3"], "--classes must lie in 0 to 2, but got 3."),
        (["--out", "x.gif"], "--out must end in .png or .npz or be a folder, but got x.gif."),
        (["--weights", "x.safetensors"], "give one of --run RUN and --weights FILE."),
    ],
)
def test_bad_options_end_with_one_line_and_status_2(
    options: list[str], message: str, run: Path, capfd: pytest.CaptureFixture[str]
):
    capfd.readouterr()
    assert sample.main(["--run", str(run), *options]) == 2
    assert capfd.readouterr().err == f"sample: error: {message}\n"


def test_a_run_without_a_checkpoint_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert sample.main(["--run", str(tmp_path / "nothing")]) == 2
    assert str(tmp_path / "nothing") in capfd.readouterr().err
