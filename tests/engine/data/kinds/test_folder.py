from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_blocks.engine.base.parallel.threads import map_in_threads
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images
from tests.engine.data.reading import one_line_error


def write_image(path: Path, level: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


def write_classes(root: Path, per_class: int = 3) -> None:
    for label, name in enumerate(("cat", "ant", "bee")):
        for number in range(per_class):
            write_image(root / name / f"{number:03}.png", level=10 * label + number)


def load(root: Path, **options: int) -> ImageSet:
    arguments = {"resolution": 8, "channels": 3, "num_classes": None, **options}
    return load_images(f"folder:{root}", **arguments)


@pytest.mark.parametrize("memory_limit", [2**30, 0])
def test_sub_folders_in_the_order_of_their_names_are_the_classes(memory_limit: int, tmp_path: Path):
    write_classes(tmp_path)
    images = load(tmp_path, memory_limit=memory_limit)
    assert images.class_names == ("ant", "bee", "cat")
    assert images.num_classes == 3
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    pixels, labels = images.batch(torch.arange(9))
    levels = torch.tensor([10, 11, 12, 20, 21, 22, 0, 1, 2])
    assert torch.equal(pixels, (levels / 127.5 - 1)[:, None, None, None].expand(9, 3, 8, 8))
    assert torch.equal(labels, images.labels)
    assert images.notes == ()


def test_reading_lazily_gives_the_same_batches_as_memory(tmp_path: Path):
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)
        path = tmp_path / f"class{number % 2}" / f"{number}.{('jpg', 'png', 'webp')[number % 3]}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    kept, lazy = load(tmp_path), load(tmp_path, memory_limit=12 * 3 * 8 * 8 - 1)
    assert not any(isinstance(value, torch.Tensor) for value in vars(lazy.read_pixels).values())
    indices = torch.tensor([11, 0, 3, 3, 7])
    for batches in (kept, lazy):
        assert torch.equal(batches.batch(indices)[0], torch.stack([kept.batch(i[None])[0][0] for i in indices]))


@pytest.mark.parametrize("memory_limit", [2**30, 0])
def test_a_damaged_file_is_named_skipped_and_counted(memory_limit: int, tmp_path: Path):
    write_classes(tmp_path, per_class=40)
    (tmp_path / "bee" / "010.png").write_bytes(b"no image")
    images = load(tmp_path, memory_limit=memory_limit)
    assert len(images) == 119
    assert torch.bincount(images.labels).tolist() == [40, 39, 40]
    pixels, labels = images.batch(torch.arange(len(images)))
    expected = [20 + n for n in range(40) if n != 10]
    assert ((pixels[labels == 1][:, 0, 0, 0] + 1) * 127.5).round().tolist() == expected
    assert len(images.notes) == 1
    assert images.notes[0].startswith(f"skipped: 1 of 120 image files cannot be read: {tmp_path}/bee/010.png (")


@pytest.mark.parametrize("memory_limit", [2**30, 0])
def test_damage_above_one_percent_is_fatal_and_names_the_first_few(memory_limit: int, tmp_path: Path):
    write_classes(tmp_path, per_class=40)
    for number in range(5):
        (tmp_path / "cat" / f"{number:03}.png").write_bytes(b"no image")
    message = one_line_error(lambda: load(tmp_path, memory_limit=memory_limit))
    assert message.startswith(
        f"--data folder:{tmp_path}: 5 of 120 image files cannot be read: {tmp_path}/cat/000.png ("
    )
    assert f"{tmp_path}/cat/002.png (" in message
    assert "003.png" not in message
    assert message.endswith(" and 2 more; above 1 % this is fatal: fix or remove them.")


def test_a_truncated_photograph_is_found_without_reading_it_into_memory(tmp_path: Path):
    write_classes(tmp_path, per_class=40)
    buffer = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    (tmp_path / "ant" / "cut.jpg").write_bytes(buffer.getvalue()[:-500])
    (note,) = load(tmp_path, memory_limit=0).notes
    assert "ant/cut.jpg (image file is truncated" in note


def test_a_file_that_vanishes_later_is_named(tmp_path: Path):
    write_classes(tmp_path)
    images = load(tmp_path, memory_limit=0)
    (tmp_path / "ant" / "001.png").unlink()
    images.batch(torch.tensor([0, 2]))
    message = one_line_error(lambda: images.batch(torch.tensor([0, 1])))
    path = tmp_path / "ant" / "001.png"
    assert message.startswith(f"--data folder:{tmp_path}: {path} was whole at the start but cannot be read any more: ")


def test_other_files_and_deeper_folders_are_skipped_and_noted(tmp_path: Path):
    write_classes(tmp_path)
    (tmp_path / "bee" / "sizes.txt").write_text("8 8")
    (tmp_path / "README").write_text("about")
    write_image(tmp_path / "ant" / "more" / "1.png")
    write_image(tmp_path / ".cache" / "1.png")
    (tmp_path / "ant" / ".hidden.png").write_bytes(b"")
    images = load(tmp_path)
    assert len(images) == 9
    assert images.class_names == ("ant", "bee", "cat")
    assert images.notes == (
        "skipped files that are no images or in no class: 2, such as README",
        "skipped folders inside a class, of which only the top level is read: 1, such as ant/more",
    )


def test_what_would_start_a_program_is_no_image(tmp_path: Path):
    write_classes(tmp_path)
    (tmp_path / "ant" / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    assert load(tmp_path).notes == ("skipped files that are no images or in no class: 1, such as ant/drawing.eps",)


def test_upper_case_suffixes_and_files_without_one_are_read(tmp_path: Path):
    write_classes(tmp_path)
    (tmp_path / "ant" / "000.png").rename(tmp_path / "ant" / "A.PNG")
    (tmp_path / "bee" / "000.png").rename(tmp_path / "bee" / "c0ffee")
    assert len(load(tmp_path)) == 9


def test_conversions_are_noted(tmp_path: Path):
    write_classes(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "ant" / "gray.png")
    Image.new("RGB", (5, 6)).save(tmp_path / "ant" / "small.png")
    assert load(tmp_path).notes == (
        "converted 1 of 11 images to RGB: 1 gray",
        "enlarged 1 of 11 images to 8 x 8 by bicubic interpolation",
        "cropped 1 of 11 images to the square in their middle",
    )


def test_folders_without_images_are_no_classes_and_are_named(tmp_path: Path):
    write_classes(tmp_path)
    (tmp_path / "apple").mkdir()
    (tmp_path / "__MACOSX" / "cat").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "cat" / "._000.png").write_bytes(b"x")
    write_image(tmp_path / "@eaDir" / "thumbnail.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    images = load(tmp_path, num_classes=3)
    assert images.class_names == ("ant", "bee", "cat")
    assert images.notes == (
        "left out 4 folders that hold no images to learn, and so no class: @eaDir, __MACOSX, apple and 1 more",
        "skipped files that are no images or in no class: 1, such as self",
    )


def test_the_folders_of_a_run_are_no_classes(tmp_path: Path):
    write_classes(tmp_path)
    for run in (tmp_path, tmp_path / "runs"):
        (run / "checkpoints").mkdir(parents=True)
        (run / "config.json").write_text("{}")
        write_image(run / "samples" / "step_000001.png")
    write_image(tmp_path / "runs" / "spectra.png")
    assert load(tmp_path).class_names == ("ant", "bee", "cat")


def test_one_class_usually_means_a_path_one_level_off(tmp_path: Path):
    write_classes(tmp_path / "train")
    message = one_line_error(lambda: load(tmp_path))
    assert message == (
        f"--data folder:{tmp_path}: the sub-folders of {tmp_path} hold no images but folders of their own: "
        f"usually the path is one level off; try {tmp_path}/train."
    )
    for number in range(2):
        write_image(tmp_path / "train" / f"{number}.png")
    assert one_line_error(lambda: load(tmp_path)) == (
        f"--data folder:{tmp_path}: all labels are equal: usually the path is one level off. "
        "To train on one class on purpose give --num-classes 1."
    )
    assert len(load(tmp_path, num_classes=1)) == 2


def test_a_folder_of_nothing_but_images_asks_for_sub_folders(tmp_path: Path):
    write_image(tmp_path / "1.png")
    write_image(tmp_path / "2.png")
    advice = "put the images into one sub-folder a class, or give --num-classes 1 to train without classes."
    expected = f"{tmp_path} holds no sub-folders; {advice}"
    assert one_line_error(lambda: load(tmp_path)) == f"--data folder:{tmp_path}: {expected}"
    images = load(tmp_path, num_classes=1)
    assert (len(images), images.class_names) == (2, ("all images",))


def test_folders_without_images_are_an_error(tmp_path: Path):
    (tmp_path / "ant").mkdir()
    expected = f"the sub-folders of {tmp_path} hold no images."
    assert one_line_error(lambda: load(tmp_path)) == f"--data folder:{tmp_path}: {expected}"


def test_a_single_image_is_an_error(tmp_path: Path):
    write_image(tmp_path / "ant" / "1.png")
    expected = "the data holds 1 image; training needs at least 2."
    assert one_line_error(lambda: load(tmp_path)) == f"--data folder:{tmp_path}: {expected}"


def test_what_the_file_system_refuses_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", refuse)
    expected = f"cannot be read: [Errno 13] Permission denied: '{tmp_path}'."
    assert one_line_error(lambda: load(tmp_path)) == f"--data folder:{tmp_path}: {expected}"


def test_a_file_is_no_folder(tmp_path: Path):
    write_image(tmp_path / "1.png")
    path = tmp_path / "1.png"
    expected = f"{path} is a file; name the folder that holds one sub-folder a class."
    assert one_line_error(lambda: load(path)) == f"--data folder:{path}: {expected}"


def test_results_of_many_threads_keep_the_order_of_the_items():
    items = list(range(1000))
    assert list(map_in_threads(lambda item: item * item, items, description="")) == [n * n for n in items]


def test_an_empty_folder_is_said_to_hold_no_images(tmp_path: Path):
    expected = f"--data folder:{tmp_path}: {tmp_path} holds no images; put the images into one sub-folder a class."
    assert one_line_error(lambda: load(tmp_path)) == expected
