import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gan_blocks.engine.commands import neighbors, sample
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.evaluation import neighbors as engine
from gan_blocks.engine.evaluation.neighbors import MEASURES, Measure, center_crop, classifier_features, nearest_images


@pytest.fixture
def images(tiny_data: Path) -> ImageSet:
    return load_images(f"npz:{tiny_data}", resolution=16, channels=1, num_classes=3)


@pytest.fixture(params=[None, 7], ids=["one block", "blocks of 7"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(engine, "BLOCK_IMAGES", request.param)


def measure(name: str, images: ImageSet) -> Measure:
    if name == "features":
        return Measure("features", 2.0, classifier_features(images, num_classes=3, seed=0))
    return MEASURES[name]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", ["pixels", "crop", "features"])
def test_the_nearest_neighbor_of_a_training_image_is_itself(name: str, images: ImageSet):
    numbers = torch.tensor([59, 0, 23])
    found = nearest_images(images.batch(numbers)[0], images, measure(name, images), count=3)
    assert torch.equal(found.numbers[:, 0], numbers)
    assert found.distances[:, 0].max() < 1e-3
    assert found.distances[:, 1].min() > 0.1


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", ["pixels", "crop"])
def test_neighbors_are_those_of_a_loop_over_all_images(name: str, images: ImageSet, rng: torch.Generator):
    queries = torch.rand(2, 1, 16, 16, generator=rng) * 2 - 1
    found = nearest_images(queries, images, MEASURES[name], count=4)
    everything = images.batch(torch.arange(len(images)))[0].double()
    for row, query in enumerate(queries.double()):
        distances = []
        for image in everything:
            if name == "pixels":
                distances.append(((image - query) ** 2).sum().sqrt().item())
            else:
                distances.append((image - query)[0, 4:12, 4:12].abs().sum().item())
        order = sorted(range(len(distances)), key=lambda number: distances[number])[:4]
        assert found.numbers[row].tolist() == order
        assert found.distances[row].tolist() == pytest.approx([distances[number] for number in order])


@pytest.mark.usefixtures("blocks")
def test_equally_near_images_stay_in_the_order_of_the_data(images: ImageSet):
    constant = Measure("nothing", 2.0, torch.zeros_like)
    found = nearest_images(torch.zeros(1, 1, 16, 16), images, constant, count=20)
    assert found.numbers.tolist() == [list(range(20))]


@pytest.mark.usefixtures("blocks")
def test_a_search_within_the_class_finds_no_other(images: ImageSet):
    queries = images.batch(torch.tensor([0, 1]))[0]
    asked = torch.tensor([2, 0])
    found = nearest_images(queries, images, MEASURES["pixels"], count=20, query_labels=asked)
    assert (images.labels[found.numbers] == asked[:, None]).all()
    assert found.distances.isfinite().all()
    # Each class has 20 images.
    more = nearest_images(queries, images, MEASURES["pixels"], count=21, query_labels=asked)
    assert more.distances[:, 20].tolist() == [torch.inf] * 2


@pytest.mark.parametrize(("size", "kept"), [(8, [2, 3, 4, 5]), (6, [1, 2, 3]), (5, [1, 2, 3]), (1, [0])])
def test_the_center_crop_is_the_middle_half(size: int, kept: list[int]):
    rows = torch.arange(size).expand(1, 1, size, size)
    crop: Tensor = center_crop(rows)
    assert crop.shape == (1, 1, len(kept), len(kept))
    assert crop[0, 0, 0].tolist() == kept
    assert center_crop(rows.transpose(2, 3))[0, 0, :, 0].tolist() == kept


def test_the_command_finds_given_training_images_and_draws_their_sheet(
    tiny_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "sheet.png"
    args = ["--run", str(tiny_run), "--samples", str(tiny_data), "--num", "3", "--neighbors", "2", "--out", str(out)]
    capsys.readouterr()
    assert neighbors.main([*args, "--by", "pixels", "crop"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "L2 in pixels: the nearest training image is 0 to 0 away",
        "L1 in the center crop: the nearest training image is 0 to 0 away",
        f"Sheet: {out}",
        "Next:",
    ]
    with Image.open(out) as sheet:
        pixels = np.array(sheet)
    # A cell is 16 pixels enlarged five times: the sample and its first neighbor in both blocks are the same.
    cell = 80
    blocks_start = [6, 6 + 86 + 18, 6 + 86 + 18 + 2 * 86 + 18]
    for row in range(3):
        top = 28 + row * (cell + 40)
        sample, *found = (pixels[top : top + cell, left : left + cell] for left in blocks_start)
        assert sample.std() > 1
        assert all(np.array_equal(sample, image) for image in found)


def test_the_command_draws_samples_and_judges_them_by_features_within_their_class(tiny_run: Path, tmp_path: Path):
    out = tmp_path / "sheet.png"
    args = ["--run", str(tiny_run), "--num", "2", "--classes", "1", "--truncation", "0.5", "--out", str(out)]
    assert neighbors.main([*args, "--by", "features", "--among", "class"]) == 0
    assert out.is_file()


def test_given_images_may_be_one_and_of_one_class(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    samples, out = tmp_path / "samples.npz", tmp_path / "sheet.png"
    assert sample.main(["--run", str(tiny_run), "--classes", "2", "--num", "1", "--out", str(samples)]) == 0
    args = ["--run", str(tiny_run), "--by", "pixels", "--out", str(out)]
    assert neighbors.main([*args, "--samples", str(samples)]) == 0
    assert out.is_file()
    capsys.readouterr()
    assert neighbors.main([*args, "--samples", str(tmp_path / "x.npz")]) == 2
    assert capsys.readouterr().err.startswith(f"neighbors: error: --samples {tmp_path}/x.npz: there is no file")
    np.savez(samples, images=np.zeros((1, 16, 16, 1), np.uint8))
    assert neighbors.main([*args, "--samples", str(samples)]) == 2  # without an option that this command does not have
    assert capsys.readouterr().err.endswith(" but labels is missing; it holds images.\n")


def test_a_run_that_is_still_growing_is_told(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(neighbors, "draw_samples", None)
    monkeypatch.setattr(neighbors, "drawn_shape", lambda trained: (1, 4, 4))
    assert neighbors.main(["--run", str(tiny_run), "--by", "pixels"]) == 2
    assert capfd.readouterr().err == (
        "neighbors: error: Generated images are 1x4x4 but real ones 1x16x16 (channels x height x width): they come "
        "from different data, or the networks are still to grow.\n"
    )


@pytest.mark.parametrize(("size", "got"), [((8, 8), "8 x 8 with 1 channel"), ((16, 16, 3), "16 x 16 with 3 channels")])
def test_given_images_of_another_size_are_refused(
    size: tuple[int, ...], got: str, tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    path = tmp_path / "samples.npz"
    np.savez(path, images=np.zeros((2, *size), np.uint8), labels=np.zeros(2, np.int64))
    assert neighbors.main(["--run", str(tiny_run), "--samples", str(path), "--by", "pixels"]) == 2
    rule = "the images must be 16 x 16 with 1 channel, as those of the run are"
    assert capfd.readouterr().err == f"neighbors: error: --samples {path}: {rule}, but got {got}.\n"


def test_distances_outlive_a_sheet_that_cannot_be_written(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "sheet.png"
    args = ["--run", str(tiny_run), "--num", "2", "--by", "pixels", "--neighbors", str(2**63 - 1), "--out", str(out)]
    assert neighbors.main(args) == 2
    said, error = capfd.readouterr()
    assert said.startswith("L2 in pixels: the nearest training image is ")
    assert error.startswith(f"neighbors: error: {out} was not written: ")


def test_a_sheet_that_no_memory_holds_is_refused_at_once(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(neighbors, "draw_samples", None)
    assert neighbors.main(["--run", str(tiny_run), "--num", str(2**63 - 1)]) == 2
    assert re.fullmatch(
        rf"neighbors: error: --num must be at most [\d,]+, for which this machine has memory, but got {2**63 - 1}\.\n",
        capfd.readouterr().err,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num", "0"], "--num must be at least 1, but got 0."),
        (["--neighbors", "0"], "--neighbors must be at least 1, but got 0."),
        (["--out", "x.gif"], "--out must end in .png, but got x.gif."),
        (["--by"], "--by must name at least one of pixels, features and crop."),
        (["--classes", "3"], "--classes must be names of classes or numbers from 0 to 2, but got 3."),
        (
            ["--samples", "x.npz", "--classes", "1"],
            "--classes is for samples that are drawn here, but --samples gives them.",
        ),
        (
            ["--samples", "x.npz", "--truncation", "1"],
            "--truncation is for samples that are drawn here, but --samples gives them.",
        ),
    ],
)
def test_what_cannot_work_ends_with_one_line_and_status_2(
    options: list[str], message: str, tiny_run: Path, capfd: pytest.CaptureFixture[str]
):
    capfd.readouterr()
    assert neighbors.main(["--run", str(tiny_run), *options]) == 2
    assert capfd.readouterr().err == f"neighbors: error: {message}\n"


def test_features_of_another_network_are_looked_at(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "look_at.py").write_text("def means(images):\n    return images.mean(dim=(2, 3))\n")
    monkeypatch.chdir(tmp_path)
    args = ["--run", str(tiny_run), "--num", "3", "--by", "features", "--features"]
    assert neighbors.main([*args, "look_at.py:means"]) == 0
    assert "L2 in means-16 features: the nearest training image is " in capsys.readouterr().out
    assert neighbors.main([*args, "inception"]) == 2
    assert "--features must be one of " in capsys.readouterr().err
