from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.commands import prepare
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.preparation.aligned_crop import FacePoints, aligned_crop
from gan_blocks.engine.preparation.landmarks import points_of_files, read_landmarks

FACE = "20 18 31 17 26 24 21 30 30 29"
POINTS = FacePoints((20, 18), (31, 17), (21, 30), (30, 29))


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Three pictures of which two have landmarks, one of them half outside."""
    random = np.random.default_rng(0)
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(random.integers(0, 256, (48, 52, 3), dtype=np.uint8)).save(folder / f"{number:06}.png")
    header = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    lines = ["2", header, f"000000.png  {FACE}", "000002.png  2 18 13 17 8 24 3 30 12 29"]
    (tmp_path / "landmarks.txt").write_text("\n".join(lines) + "\n")
    return folder


def run(faces: Path, *more: str) -> int:
    folder = faces.parent
    args = ["--data", f"folder:{faces}", "--out", str(folder / "store"), "--resolution", "60", "12"]
    return prepare.main([*args, "--landmarks", str(folder / "landmarks.txt"), *more])


def test_a_file_that_was_not_fetched_is_named(tmp_path: Path):
    (tmp_path / "list.txt").write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(UserError, match=r"^--landmarks .*list\.txt is a web page: the download failed\.$"):
        read_landmarks(tmp_path / "list.txt")


def test_a_store_of_faces_holds_the_aligned_crops(faces: Path, capsys: pytest.CaptureFixture[str]):
    assert run(faces) == 0
    out = capsys.readouterr().out
    assert "Preparing 2 images at 60 x 60, 12 x 12 in 1 shard of each size.\n" in out
    (note,) = [line for line in out.splitlines() if line.startswith("Note: ")]
    assert note == "Note: left out for want of landmarks: 1 of 3 images, such as 000001.png."
    beside = FacePoints(*((x - 18, y) for x, y in POINTS))
    for resolution in (12, 60):
        store = load_images(f"shards:{faces.parent}/store", resolution=resolution, channels=3, num_classes=1)
        for pixels, name, points in zip(
            store.read_pixels(store.labels.new_tensor([0, 1])), ("000000", "000002"), (POINTS, beside), strict=True
        ):
            picture = np.asarray(Image.open(faces / f"{name}.png"))
            assert np.array_equal(pixels, aligned_crop(picture, points, resolution))


def test_faces_in_gray_are_crops_of_gray_pictures(faces: Path):
    assert run(faces, "--channels", "1") == 0
    store = load_images(f"shards:{faces.parent}/store", resolution=12, channels=1, num_classes=1)
    picture = np.asarray(Image.open(faces / "000000.png").convert("L"))[..., None]
    assert np.array_equal(store.read_pixels(store.labels.new_tensor([0]))[0], aligned_crop(picture, POINTS, 12))


def test_landmarks_that_give_no_crop_count_as_damage(faces: Path, capsys: pytest.CaptureFixture[str]):
    (faces.parent / "landmarks.txt").write_text(f"000000.png {FACE}\n000001.png 900 18 911 17 906 24 901 30 910 29\n")
    assert run(faces) == 2
    message = capsys.readouterr().err
    assert f"{faces}/000001.png (the landmarks do not fit into the image); above 1 % this is fatal" in message


def test_a_store_is_continued_with_the_same_landmarks_only(faces: Path, capsys: pytest.CaptureFixture[str]):
    assert run(faces) == 0
    path = faces.parent / "landmarks.txt"
    text = path.read_text()
    path.write_text(text.replace("20 18", "20 19"))
    assert run(faces) == 2
    assert "was begun with other images or landmarks" in capsys.readouterr().err
    path.write_text(text)
    assert run(faces) == 0


def test_a_table_of_comma_separated_values_says_the_same(faces: Path, tmp_path: Path):
    table = tmp_path / "landmarks.csv"
    spaced, exact = FACE.replace(" ", ", "), FACE.replace(" ", ".0,")
    table.write_text(f"image_id, lefteye_x, and so on\ncat/my face.jpg, {spaced}\n\nb.jpg,{exact}")
    assert read_landmarks(table) == {"cat/my face.jpg": POINTS, "b.jpg": POINTS}
    assert read_landmarks(tmp_path / "landmarks.txt")["000000.png"] == POINTS


def test_a_bare_name_stands_for_a_file_that_alone_has_it():
    other = POINTS._replace(eye_0=(0, 0))
    landmarks = {"a.jpg": POINTS, "x/b.jpg": other, "b.jpg": POINTS, "c.jpg": POINTS}
    names = ["x/a.jpg", "x/b.jpg", "y/b.jpg", "y/d.jpg"]
    assert points_of_files(landmarks, names) == [POINTS, other, None, None]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", " must hold lines of a file name and ten numbers, but has none."),
        ("a.jpg 1 2 3 4 5 6 7 8", " must hold lines of a file name and ten numbers, but has none."),
        (f"a.jpg {FACE}\n\nb.jpg 1 2", ": line 3 must be a file name and ten numbers, but is 'b.jpg 1 2'."),
        (
            f"a.jpg {FACE}\nb.jpg {FACE[:-2]}x",
            f": line 2 must be a file name and ten numbers, but is 'b.jpg {FACE[:-2]}x'.",
        ),
        (f"a.jpg {FACE}\na.jpg {FACE}", ": line 2 names a.jpg again."),
        (b"\xff\xfe\x00", " cannot be read: it is no text."),
        (None, " cannot be read: No such file or directory."),
    ],
)
def test_a_file_that_holds_no_landmarks_is_refused(text: str | bytes | None, problem: str, tmp_path: Path):
    path = tmp_path / "landmarks.txt"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        read_landmarks(path)
    assert str(caught.value) == f"--landmarks {path}{problem}"


def test_landmarks_need_image_files_that_they_name(faces: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]):
    assert run(faces, "--data", f"npz:{tiny_data}") == 2
    rule = f"--landmarks is for image files: --data folder:PATH, but got --data npz:{tiny_data}."
    assert capsys.readouterr().err == f"prepare: error: {rule}\n"
    path = faces.parent / "landmarks.txt"
    path.write_text(f"else.png {FACE}")
    assert run(faces) == 2
    expected = f"--landmarks {path} names none of the images, such as 000000.png."
    assert capsys.readouterr().err == f"prepare: error: {expected}\n"
