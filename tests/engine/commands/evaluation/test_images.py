import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import evaluate
from gan_blocks.engine.commands.evaluation.images import load_given_images
from gan_blocks.engine.commands.evaluation.options import one_run_each

BROUGHT = "all images are brought to 16 x 16, the side of the first of --images; --resolution sets another."


def pictures(folder: Path, count: int, *, classes: tuple[str, ...] = (), side: int = 16, channels: int = 1) -> Path:
    rng = np.random.default_rng(count + side)
    for number in range(count):
        place = folder / classes[number % len(classes)] if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        shape = (side, side) if channels == 1 else (side, side, 3)
        pixels = rng.integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels // (1 + number % max(1, len(classes)))).save(place / f"{number:03d}.png")
    return folder


def arrays(path: Path, count: int, *, side: int = 16, labels: bool = True) -> Path:
    rng = np.random.default_rng(count)
    named = {"labels": np.arange(count) % 2} if labels else {}
    np.savez(path, images=rng.integers(0, 256, (count, side, side, 1), np.uint8), **named)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_folders_are_compared_without_a_run(here: Path, capsys: pytest.CaptureFixture[str]):
    pictures(here / "a", 14, classes=("cat", "dog"))
    pictures(here / "b", 30, classes=("cat", "dog", "owl"))
    args = ["--images", "a", "--against", "b", "--features", "classifier", "--cache", "kept"]
    assert evaluate.main(args) == 0
    printed = capsys.readouterr().out
    found = json.loads((here / "evaluation.json").read_bytes())
    assert found["images"] == "a"
    assert (found["num_generated"], found["num_real"], found["resolution"]) == (14, 30, 16)
    assert found["features"]["network"] == "classifier-32"
    for key in ("frechet_distance", "kernel_distance", "classifier_score", "precision", "coverage", "copied_share"):
        score = found[key]
        assert score.keys() >= {"name", "value", "interval", "floor", "real", "samples", "floor_samples"}, key
        assert score["name"] in printed
    assert list(found["intra_class_frechet_distance"]["by_class"]) == ["0", "1"]
    assert "Note: 14 samples are few" in printed
    kept = sorted((here / "kept").iterdir())
    assert evaluate.main([*args, "--out", "again.json"]) == 0
    again = json.loads((here / "again.json").read_bytes())
    assert again == found
    assert sorted((here / "kept").iterdir()) == kept


def test_a_set_against_itself_has_no_distance(here: Path):
    pictures(here / "a", 14)
    (here / "look.py").write_text("def means(images):\n    return images.flatten(1)[:, ::7]\n")
    assert evaluate.main(["--images", "a", "--against", "folder:a", "--features", "look.py:means"]) == 0
    found = json.loads((here / "evaluation.json").read_bytes())
    assert found["frechet_distance"]["value"] == pytest.approx(0, abs=1e-4)
    assert found["precision"]["value"] == found["recall"]["value"] == 1
    assert found["frechet_distance"]["name"] == "FD-means-16"


def test_without_features_pixels_are_compared(here: Path, capsys: pytest.CaptureFixture[str]):
    pictures(here / "a", 8)
    pictures(here / "b", 12)
    assert evaluate.main(["--images", "a", "--against", "b"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:-1] == ["Figures: evaluation.json", "Next:"]
    assert printed[-1].startswith("  what a network sees: ")
    assert printed[-1].endswith(" evaluate --images a --against b --features efflite0-128")
    assert json.loads((here / "evaluation.json").read_bytes())["num_real"] == 12


def test_other_sizes_and_channels_are_converted_and_said(here: Path):
    pictures(here / "a", 6)
    pictures(here / "b", 6, side=24, channels=3)
    given = load_given_images("a", "b", None)
    assert given.images.layout == given.real.layout
    assert given.images.layout.shape == (3, 16, 16)
    assert BROUGHT in given.notes
    assert given.notes.count("--images: converted 6 of 6 images to RGB: 6 gray") == 1
    smaller = load_given_images("a", "b", 8)
    assert smaller.images.resolution == 8
    assert "all images are brought to 8 x 8." in smaller.notes


def test_the_side_of_the_first_image_is_told_to_be_that_of_all(here: Path):
    pictures(here / "a", 100)
    (here / "a" / "0.png").write_bytes((here / "a" / "000.png").read_bytes()[:60])
    for number, size in enumerate([(16, 24), (64, 64), (512, 200)]):
        Image.new("L", size, number).save(here / "a" / f"{number:03d}.png")
    notes = load_given_images("a", "a", None).notes
    assert notes[0] == "--images: cropped 2 of 100 images to the square in their middle"
    assert notes[1].startswith("--images: skipped: 1 of 101 image files cannot be read: ")
    assert notes[-1] == BROUGHT
    larger, smaller = arrays(here / "c.npz", 10, side=24), arrays(here / "d.npz", 10)
    assert load_given_images(str(smaller), str(larger), None).notes == (
        "--against: images of 24 x 24 pixels are brought to 16 x 16 by area.",
    )


def test_the_first_image_may_have_text_that_pillow_refuses(here: Path):
    pictures(here / "a", 4)
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    Image.new("L", (20, 20)).save(here / "a" / "000.png", pnginfo=text)
    assert load_given_images("a", "a", None).images.resolution == 20


def test_labels_are_matched_by_the_names_of_classes(here: Path):
    pictures(here / "a", 8, classes=("dog", "owl"))
    pictures(here / "b", 9, classes=("cat", "dog", "owl"))
    given = load_given_images("a", "b", None)
    assert given.images.labels.unique().tolist() == [1, 2]
    assert given.images.class_names == given.real.class_names == ("cat", "dog", "owl")


def test_without_classes_in_common_all_are_of_one(here: Path):
    pictures(here / "a", 8)
    given = load_given_images("a", str(arrays(here / "b.npz", 10)), None)
    assert given.config.num_classes == 1
    assert given.real.labels.unique().tolist() == [0]
    assert given.notes[-1] == "--images has no classes: all images are of one."
    pictures(here / "e", 8, classes=("emu", "owl"))
    pictures(here / "f", 8, classes=("cat", "dog"))
    assert load_given_images("e", "f", None).notes == (
        BROUGHT,
        "The two sets have no classes in common: all images are of one.",
    )
    assert load_given_images("a", str(arrays(here / "c.npz", 10, labels=False)), None).notes == (BROUGHT,)


def test_numbers_of_classes_that_names_do_not_match_are_told(here: Path):
    pictures(here / "a", 8, classes=("cat", "dog"))
    numbers = str(arrays(here / "b.npz", 10))
    told = "has numbers for its classes (0 to 1), {} has names (cat, ...), and nothing says which is which"
    for order, message in (
        ((numbers, "a"), f"--images {told.format('--against')}: all images are of one class."),
        (("a", numbers), f"--against {told.format('--images')}: all images are of one class."),
    ):
        given = load_given_images(*order, None)
        assert given.notes[-1] == message
        assert given.config.num_classes == 1


def test_samples_of_a_single_class_are_compared_with_that_class(here: Path):
    pictures(here / "a", 8, classes=("dog",))
    pictures(here / "b", 9, classes=("cat", "dog", "owl"))
    given = load_given_images("a", "b", None)
    assert given.images.labels.unique().tolist() == [1]
    assert given.config.num_classes == 3
    assert given.notes == (BROUGHT,)
    # Arrays without labels have no class, not the one that is called 0.
    pictures(here / "digits", 9, classes=("0", "1"))
    given = load_given_images(str(arrays(here / "c.npz", 10, labels=False)), "digits", None)
    assert given.config.num_classes == 1


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (("cat", "emu"), ("cat", "dog"), "--images has 4 images of class emu, but --against has none of it."),
        (("cat", "dog") * 3 + ("emu",), ("cat", "dog", "emu"), "--images has one image of class emu, but diversity"),
    ],
)
def test_classes_that_cannot_be_compared_are_named(here: Path, a: tuple[str, ...], b: tuple[str, ...], message: str):
    pictures(here / "a", 8, classes=a)
    pictures(here / "b", 12, classes=b)
    with pytest.raises(UserError) as error:
        load_given_images("a", "b", None)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--images", "a"], "--images and --against are given together, without --run."),
        (["--against", "a"], "--images and --against are given together, without --run."),
        (["--run", "a", "--images", "a", "--against", "a"], "--run is for a run, but --images gives the images."),
        (["--images", "a", "--against", "a", "--num", "9"], "--num is for a run, but --images gives the images."),
        (["--images", "gone", "--against", "a"], "--images gone: there is no file or folder"),
        (["--images", "a/000.png", "--against", "a"], "--images a/000.png: unknown source; choose one of"),
        (
            ["--images", "a", "--against", "few", "--features", "efflite0-64"],
            "--features needs at least 12 real images",
        ),
        (
            ["--images", "few", "--against", "a", "--features", "efflite0-64"],
            "the number of --images must be at least 6",
        ),
        (["--images", "a", "--against", "a", "--features", "classifier"], "needs real images of two or more classes"),
        (["--images", "a", "--against", "a", "--features", "no.pt"], "--features no.pt cannot be read"),
        (["--images", "a", "--against", "a", "--out", "a"], "--out must end in .json, but got a."),
        (["--images", "a", "--against", "a", "--resolution", "0"], "--resolution must be greater than 0, but got 0."),
        (
            ["--images", "a", "--against", "a", "--resolution", "10000000000"],
            "images of 10,000,000,000 x 10,000,000,000 pixels need millions of GB or more, but",
        ),
        (
            ["--images", "a", "--against", "a", "--precision", "bf16"],
            "--precision is for a run, but --images gives the images.",
        ),
    ],
)
def test_what_cannot_work_is_one_line(here: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    pictures(here / "a", 14)
    pictures(here / "few", 5)
    assert evaluate.main(args) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (here / "evaluation.json").exists()


def test_several_runs_are_command_lines_of_their_own():
    assert one_run_each(["--num", "6", "--run", "a", "b", "--seed", "1"]) == [
        ["--run", "a", "--num", "6", "--seed", "1"],
        ["--run", "b", "--num", "6", "--seed", "1"],
    ]
    for alone in (["--run", "a", "--num", "6"], ["--run=a"], []):
        assert one_run_each(alone) == [alone]
    with pytest.raises(UserError, match=r"^--run must name each run once, but got a a\.$"):
        one_run_each(["--run", "a", "a"])


def test_several_runs_are_compared_in_a_table(tiny_run: Path, here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "other").symlink_to(tiny_run)
    args = ["--run", str(tiny_run), str(here / "other"), "--num", "6", "--out", "both.json"]
    assert evaluate.main(args) == 0
    printed = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(printed) if line.split() == ["run", "other"])
    rows = {line.split()[0]: line.split()[1:] for line in printed[head + 1 :]}
    found = json.loads((here / "both.json").read_bytes())["runs"]
    assert rows["novelty"] == [f"{values['novelty']:.4g}" for values in found.values()]
    assert rows["novelty"][0] == rows["novelty"][1]
    assert (tiny_run / "evaluation.json").exists()


def test_of_several_runs_the_recipe_is_for_those_that_need_one(
    tiny_run: Path, here: Path, capsys: pytest.CaptureFixture[str]
):
    (here / "other").symlink_to(tiny_run)
    args = ["--num", "6", "--recipe", "recipes.sngan", "--run", str(tiny_run)]
    assert evaluate.main(args) == 2
    assert " was made by recipes.biggan_deep:RECIPE, not by recipes.sngan:RECIPE" in capsys.readouterr().err
    assert evaluate.main([*args, str(here / "other")]) == 0
