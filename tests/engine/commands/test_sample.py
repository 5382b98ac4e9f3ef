import dataclasses
import errno
import re
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gan_blocks import UniformPrior
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import sample
from gan_blocks.engine.commands.sampling import paths as sample_paths
from gan_blocks.engine.sampling.samples import (
    TruncationKind,
    draw_latents,
    draw_samples,
    generate,
    ready_generator,
    sample_batches,
    sampling_generator,
    truncated,
)
from gan_blocks.engine.sampling.trained import load_trained

KINDS = ("threshold", "scaled")


@pytest.fixture
def run(tiny_run: Path) -> Path:
    return tiny_run


def draw(run: Path, out: Path, *options: str) -> tuple[np.ndarray, np.ndarray]:
    assert sample.main(["--run", str(run), "--out", str(out), *options]) == 0
    with np.load(out) as arrays:
        return arrays["images"], arrays["labels"]


class Unbounded(nn.Module):
    """Twice as large images as those of a generator."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.generator(z, labels)
        return 2 * images.atanh()


def test_images_of_an_unbounded_generator_are_drawn_as_they_are_shown(run: Path, tmp_path: Path):
    trained = load_trained(run=run, weights=None, device=torch.device("cpu"))
    unbounded = dataclasses.replace(trained, average=Unbounded(trained.average))
    drawn, _ = draw_samples(unbounded, 6, seed=0)
    wild = 2 * draw_samples(trained, 6, seed=0)[0].atanh()
    assert wild.abs().max() > 1
    torch.testing.assert_close(drawn, wild.clamp(-1, 1))


def test_npz_holds_uint8_nhwc_images_and_evenly_spread_labels(run: Path, tmp_path: Path):
    images, labels = draw(run, tmp_path / "out.npz", "--num", "7")
    assert images.dtype == np.uint8
    assert images.shape == (7, 16, 16, 1)
    assert labels.tolist() == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("limit", "kind"), [(None, None), (0.5, "threshold"), (0.5, "scaled")])
def test_a_sample_is_the_same_in_any_batch(limit: float | None, kind: TruncationKind | None, run: Path):
    """Seed, class and truncation fix a sample to 1e-5, whatever batch it is drawn in."""
    trained = truncated(load_trained(run=run, weights=None, device=torch.device("cpu")), limit, kind)
    model = ready_generator(trained)
    z = draw_latents(trained.prior, 12, seed=3)
    assert torch.equal(draw_latents(trained.prior, 5, seed=3), z[:5])
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


def test_truncation_is_by_the_definition_that_is_named(run: Path):
    trained = load_trained(run=run, weights=None, device=torch.device("cpu"))
    by_threshold, scaled = (draw_latents(truncated(trained, 0.5, kind).prior, 200, seed=0) for kind in KINDS)
    assert 0.49 < by_threshold.abs().max() <= 0.5
    assert 0.9 < scaled.abs().max() <= 1  # half of a normal distribution cut at 2
    assert draw_latents(trained.prior, 200, seed=0).abs().max() > 2


def test_a_prior_that_is_not_normal_cannot_be_truncated(run: Path):
    trained = load_trained(run=run, weights=None, device=torch.device("cpu"))
    trained = dataclasses.replace(trained, prior=UniformPrior(6))
    with pytest.raises(UserError, match=r"^--truncation works for a normal latent only\.$"):
        truncated(trained, 0.5, None)


def test_a_generator_without_batch_norm_and_spectral_norm_is_copied_as_it_is(run: Path):
    trained = load_trained(run=run, weights=None, device=torch.device("cpu"))
    plain = nn.Sequential(nn.Linear(6, 2)).eval()
    model = sampling_generator(plain, trained.prior, trained.config)
    x = torch.randn(3, 6)
    assert model is not plain
    assert torch.equal(model(x), plain(x))


def test_a_truncation_sheet_has_a_block_a_truncation_of_the_same_latents(run: Path, tmp_path: Path):
    options = ["--run", str(run), "--columns", "2", "--truncations", "1", "1", "0.1"]
    assert sample.main(["truncation", *options, "--out", str(tmp_path / "sheet.png")]) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.array(sheet)
    # Images of 16 pixels and gaps of 2 are enlarged four times; blocks are 12 pixels apart.
    step, top = (16 + 2) * 4, pixels.shape[0] - (3 * (16 + 2) + 2) * 4
    width = (2 * (16 + 2) + 2) * 4
    left = pixels.shape[1] - 3 * width - 2 * 12
    first, second, third = (pixels[top:, left + n * (width + 12) : left + n * (width + 12) + width] for n in range(3))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)
    images, _ = draw(run, tmp_path / "plain.npz", "--num", "6", "--truncation", "1")
    for number, image in enumerate(images[..., 0]):
        y, x = number // 2 * step + 8, number % 2 * step + 8
        assert np.abs(first[y : y + 64 : 4, x : x + 64 : 4].astype(int) - image).max() <= 1


def test_there_is_one_sheet_a_class_and_all_have_the_same_latents(run: Path, tmp_path: Path):
    folder = tmp_path / "classes"
    assert sample.main(["classes", "--run", str(run), "--num", "4", "--classes", "2", "0", "--out", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["class_0.png", "class_2.png"]
    images, _ = draw(run, tmp_path / "plain.npz", "--num", "4", "--classes", "2")
    assert sample.main(["classes", "--run", str(run), "--num", "4", "--out", str(folder), "--batch-size", "3"]) == 0
    with Image.open(folder / "class_2.png") as sheet:
        corner = np.array(sheet)[8:72:4, 8:72:4]
    assert np.abs(corner.astype(int) - images[0, ..., 0]).max() <= 1


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


def sheet(run: Path, out: Path, *options: str) -> np.ndarray:
    assert sample.main(["--run", str(run), "--out", str(out), *options]) == 0
    with Image.open(out) as picture:
        return np.array(picture)


def side(images: int, scale: int = 4) -> int:
    """How wide or high a grid of images of 16 pixels is."""
    return (images * (16 + 2) + 2) * scale


def test_a_grid_has_one_row_a_class_and_its_name_beside_it(run: Path, tmp_path: Path):
    plain = sheet(run, tmp_path / "plain.png", "--num", "12", "--no-captions")
    assert plain.shape == (side(3), side(4))
    captioned = sheet(run, tmp_path / "captioned.png", "--num", "12")
    left = captioned.shape[1] - plain.shape[1]
    assert 0 < left < 60
    assert np.array_equal(captioned[:, left:], plain)
    assert [bool((row < 128).any()) for row in np.split(captioned[4:-4, :left], 3)] == [True] * 3


def test_by_default_all_classes_have_the_same_number_and_rows_of_their_own(run: Path, tmp_path: Path):
    _, labels = draw(run, tmp_path / "out.npz")
    assert np.bincount(labels).tolist() == [33] * 3
    assert sheet(run, tmp_path / "sheet.png", "--scale", "1", "--no-captions").shape == (side(9, 1), side(11, 1))


def test_columns_and_scale_are_those_that_are_asked_for(run: Path, tmp_path: Path):
    by_two = sheet(run, tmp_path / "2.png", "--num", "12", "--columns", "2", "--scale", "3")
    assert by_two.shape[0] == side(6, scale=3)
    left = by_two.shape[1] - side(2, scale=3)
    # The name of a class stands beside the first of its two rows.
    parts = np.array_split(by_two[3:-3, :left], 6)
    assert [bool((row < 128).any()) for row in parts] == [True, False] * 3
    mixed = sheet(run, tmp_path / "5.png", "--num", "12", "--columns", "5", "--scale", "1")
    assert mixed.shape == (side(3, scale=1), side(5, scale=1))
    assert sheet(run, tmp_path / "one.png", "--num", "3", "--columns", "9", "--scale", "1").shape == (20, side(3, 1))
    for word, *words in (["truncation", "--columns", "2"], ["interpolation", "--rows", "3", "--steps", "2"]):
        heights = []
        for scale in ("2", "3"):
            assert (
                sample.main([word, "--run", str(run), "--out", str(tmp_path / "s.png"), "--scale", scale, *words]) == 0
            )
            with Image.open(tmp_path / "s.png") as picture:
                heights.append(picture.height)
        assert heights[1] - heights[0] == side(3, scale=1)
    words = ["classes", "--run", str(run), "--num", "4", "--columns", "4", "--scale", "2", "--out"]
    assert sample.main([*words, str(tmp_path / "classes")]) == 0
    with Image.open(tmp_path / "classes" / "class_0.png") as picture:
        assert picture.size == (side(4, scale=2), side(1, scale=2))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--scale", "0"], "--scale must be from 1 to 64, but got 0."),
        (["--scale", "65"], "--scale must be from 1 to 64, but got 65."),
        (["--columns", "0"], "--columns must be at least 1, but got 0."),
        (["--columns", "3", "--out", "x.npz"], "--columns is for a sheet (.png), but --out is x.npz."),
        (["--scale", "3", "--out", "x/"], "--scale is for a sheet (.png), but --out is x."),
    ],
)
def test_columns_and_scale_that_cannot_be_are_one_line(
    words: list[str], problem: str, run: Path, capfd: pytest.CaptureFixture[str]
):
    assert sample.main(["--run", str(run), *words]) == 2
    assert capfd.readouterr().err == f"sample: error: {problem}\n"


def test_a_folder_gets_one_png_a_sample(run: Path, tmp_path: Path):
    assert sample.main(["--run", str(run), "--num", "3", "--out", str(tmp_path / "images")]) == 0
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == [f"{number:06d}_class_{number}.png" for number in range(3)]


@pytest.mark.parametrize("name", ["out.npz", "OUT.NPZ"])
def test_the_arrays_are_the_file_that_numpy_writes(name: str, run: Path, tmp_path: Path):
    images, labels = draw(run, tmp_path / name, "--num", "7", "--batch-size", "3")
    np.savez(tmp_path / "numpy.npz", images=images, labels=labels, class_names=np.array(["0", "1", "2"]))
    assert (tmp_path / name).read_bytes() == (tmp_path / "numpy.npz").read_bytes()


@pytest.mark.parametrize("name", ["out.npz", "out.png", "folder"])
def test_a_batch_is_written_before_the_next_but_one_is_drawn(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alive: list[weakref.ref[torch.Tensor]] = []

    def watched(*args: object, **options: object) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for numbers, images in sample_batches(*args, **options):
            assert sum(batch() is not None for batch in alive) <= 1
            alive.append(weakref.ref(images))
            yield numbers, images

    monkeypatch.setattr(sample, "sample_batches", watched)
    options = ["--run", str(run), "--num", "9", "--batch-size", "2"]
    assert sample.main([*options, "--out", str(tmp_path / name)]) == 0
    assert len(alive) == 5


def test_a_folder_of_samples_is_not_added_to(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    folder = tmp_path / "folder"
    options = ["--run", str(run), "--out", str(folder)]
    assert sample.main([*options, "--num", "4"]) == 0
    before = sorted(folder.iterdir())
    capfd.readouterr()
    assert sample.main([*options, "--num", "2", "--seed", "5"]) == 2
    message = f"sample: error: {folder} holds 4 samples already: choose another folder or remove them.\n"
    assert capfd.readouterr().err == message
    assert sorted(folder.iterdir()) == before
    # A sheet a class: those that are all replaced are no mixture.
    sheets = tmp_path / "sheets"
    options = ["classes", "--run", str(run), "--num", "1", "--out", str(sheets)]
    assert sample.main([*options, "--classes", "1", "2"]) == 0
    assert sample.main([*options, "--classes", "0", "2"]) == 2
    assert f"{sheets} holds 1 samples already" in capfd.readouterr().err
    (folder / "photo.PNG").touch()
    assert sample.main(["--run", str(run), "--num", "1", "--out", str(folder)]) == 2
    assert f"{folder} holds 5 images already" in capfd.readouterr().err


def test_a_slash_or_an_existing_folder_is_a_folder_and_capitals_are_a_suffix(run: Path, tmp_path: Path):
    (tmp_path / "old.v2").mkdir()
    options = ["--run", str(run), "--num", "2", "--out"]
    assert sample.main([*options, f"{tmp_path}/new.v2/"]) == 0
    assert sample.main([*options, f"{tmp_path}/old.v2"]) == 0
    assert all(len(list((tmp_path / name).iterdir())) == 2 for name in ("new.v2", "old.v2"))
    assert sample.main([*options, f"{tmp_path}/out.PNG"]) == 0
    with Image.open(tmp_path / "out.PNG") as grid:
        assert grid.format == "PNG"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--num", "1000000000000", "--out", "x.npz"], "--num"),
        (["--num", "9223372036854775807", "--out", "x.png"], "--num"),
        (["--num", "9223372036854775807", "--out", "folder"], "--num"),
        (["classes", "--num", "9223372036854775807"], "--num"),
        (["truncation", "--columns", "9223372036854775807"], "--columns"),
        (["interpolation", "--rows", "9223372036854775807"], "--rows"),
        (["interpolation", "--steps", "9223372036854775807"], "--steps"),
        (["walk", "--num", "9223372036854775807"], "--num"),
    ],
)
def test_what_no_memory_or_disk_holds_is_refused_at_once(
    words: list[str], option: str, run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    for module in (sample, sample_paths):
        monkeypatch.setattr(module, "ready_generator", None)
    monkeypatch.setattr(sample, "sample_batches", None)
    assert sample.main([*words, "--run", str(run)]) == 2
    line = (
        rf"sample: error: {option} must be at most [\d,]+, for which (this machine has memory|there is room in \S+), "
    )
    assert re.fullmatch(rf"{line}but got {words[words.index(option) + 1]}\.\n", capfd.readouterr().err)


def test_a_batch_is_never_larger_than_what_is_drawn(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    options = ["--run", str(run), "--num", "3", "--batch-size", str(2**63 - 1), "--out", str(tmp_path / "x.npz")]
    assert sample.main(options) == 0
    monkeypatch.setattr("gan_blocks.engine.commands.sampling.options.physical_memory", lambda: 2 * 1024)
    monkeypatch.setattr("gan_blocks.engine.base.memory.physical_memory", lambda: 2 * 1024)
    capfd.readouterr()
    assert sample.main(options) == 2
    assert capfd.readouterr().err == (
        f"sample: error: --batch-size must be at most 2, for which this machine has memory, but got {2**63 - 1}.\n"
    )


def test_the_number_of_threads_can_be_set(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    before = torch.get_num_threads()
    options = ["--run", str(run), "--num", "1", "--out", str(tmp_path / "x.npz")]
    try:
        assert sample.main([*options, "--threads", "1"]) == 0
        assert torch.get_num_threads() == 1
        assert "--threads" not in capfd.readouterr().out
        assert sample.main([*options, "--threads", "3"]) == 0
        assert "--threads 3 is more than there are cores (2)" in capfd.readouterr().out
    finally:
        torch.set_num_threads(before)
    assert sample.main([*options, "--threads", "0"]) == 2
    assert capfd.readouterr().err.endswith("--threads must be from 1 to 1,024, but got 0.\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num", "0"], "--num must be at least 1, but got 0."),
        (["--truncation", "inf"], "--truncation must be a finite number of at least 0, but got inf."),
        (["--truncation", "-1"], "--truncation must be a finite number of at least 0, but got -1.0."),
        (["--classes", "3"], "--classes must be names of classes or numbers from 0 to 2, but got 3."),
        (["--out", "x.gif"], "--out must end in .png or .npz or be a folder, but got x.gif."),
        (["--weights", "x.safetensors"], "give one of --run RUN and --weights FILE."),
        (
            ["--truncation-by", "scaled"],
            "--truncation-by says what the number of --truncation means, but there is no --truncation.",
        ),
        (["truncation", "--columns", "0"], "--columns must be at least 1, but got 0."),
        (["truncation", "--out", "x.npz"], "--out must end in .png, but got x.npz."),
        (
            ["truncation", "--truncations", "1", "-1"],
            "--truncations must be one or more numbers of at least 0, but got 1 -1.",
        ),
        (["truncation", "--truncations"], "--truncations must be one or more numbers of at least 0, but got none."),
        (["truncation", "--classes", "-1"], "--classes must be names of classes or numbers from 0 to 2, but got -1."),
        (["classes", "--out", "x.png"], "--out must be a folder, but got x.png."),
        (["classes", "--num", "0"], "--num must be at least 1, but got 0."),
    ],
)
def test_bad_options_end_with_one_line_and_status_2(
    options: list[str], message: str, run: Path, capfd: pytest.CaptureFixture[str]
):
    capfd.readouterr()
    words = options if not options[0].startswith("-") else ["grid", *options]
    assert sample.main([words[0], "--run", str(run), *words[1:]]) == 2
    assert capfd.readouterr().err == f"sample: error: {message}\n"


@pytest.mark.parametrize("name", ["sheet.png", "samples.npz"])
def test_a_full_disk_keeps_the_older_file(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / name
    out.write_bytes(b"older")

    def full_disk(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gan_blocks.engine.base.files.write_durably", full_disk)
    assert sample.main(["--run", str(run), "--num", "3", "--out", str(out)]) == 2
    assert capfd.readouterr().err.startswith(f"sample: error: {out} was not written: the disk mounted at ")
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_bytes() == b"older"


def test_a_full_disk_leaves_whole_pictures_in_a_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    save = Image.Image.save

    def full_disk(image: Image.Image, path: Path) -> None:
        save(image, path)
        if "000001" in path.name:
            path.write_bytes(b"torn")
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    assert sample.main(["--run", str(run), "--num", "3", "--out", str(tmp_path / "images")]) == 2
    assert "images was not written: the disk mounted at " in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["000000_class_0.png"]


@pytest.mark.parametrize("name", ["sheet.png", "samples.npz", "folder"])
def test_a_place_that_cannot_be_written_is_named(
    name: str, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / name
    assert sample.main(["--run", str(run), "--num", "3", "--out", str(out)]) == 2
    assert re.fullmatch(rf"sample: error: {out} was not written: \w[\w ]+\.", capfd.readouterr().err.splitlines()[-1])


def test_a_run_without_a_checkpoint_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert sample.main(["--run", str(tmp_path / "nothing")]) == 2
    assert str(tmp_path / "nothing") in capfd.readouterr().err


def test_a_word_that_draws_nothing_is_told_which_do(capfd: pytest.CaptureFixture[str]):
    assert sample.main(["gird", "--num", "3"]) == 2
    expected = (
        "sample: error: the first word must be one of grid, truncation, classes, interpolation, walk, but got gird. "
        "Perhaps you meant grid."
    )
    assert capfd.readouterr().err == expected + "\n"


def test_the_help_says_what_is_drawn_without_a_word(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        sample.main(["--help"])
    page = capsys.readouterr().out
    assert "These are the options of grid, which needs no word." in page
    assert re.findall(r"^  gan-blocks sample (\w+)", page, re.M) == list(sample.KINDS)


@pytest.mark.parametrize("word", ["grid", "truncation", "classes", "interpolation", "walk"])
def test_each_word_explains_its_options(word: str, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        sample.main([word, "--help"])
    assert stop.value.code == 0
    text = capfd.readouterr().out
    assert "--out" in text
    assert "--batch-size" in text
