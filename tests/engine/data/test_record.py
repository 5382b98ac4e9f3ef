import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.data.record import DataRecord, changes, record_of, unlike
from tests.engine.data.kinds.test_folder import write_classes, write_image


def record(folder: Path, num_classes: int | None = None) -> DataRecord:
    images = load_images(f"folder:{folder}", resolution=8, channels=1, num_classes=num_classes, memory_limit=0)
    return record_of(images, f"folder:{folder}", seed=0)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    write_classes(folder, per_class=4)
    return folder


def test_a_record_says_what_there_is_and_comes_back_from_json(pictures: Path):
    found = record(pictures)
    assert (found.class_names, found.class_counts, found.images) == (("ant", "bee", "cat"), (4, 4, 4), 12)
    assert DataRecord.from_dict(json.loads(json.dumps(found.as_dict()))) == found
    assert found.listed_classes() == "classes (and their images): 0 = ant (4), 1 = bee (4), 2 = cat (4)"


def test_the_same_images_elsewhere_have_the_same_record_but_for_their_place(pictures: Path, tmp_path: Path):
    then = record(pictures)
    now = record(pictures.rename(tmp_path / "moved"))
    assert now == dataclasses.replace(then, source=now.source)
    assert changes(then, now) is unlike([then, now]) is None


def test_whatever_makes_it_another_training_is_named(pictures: Path):
    then = record(pictures)
    write_image(pictures / "ant" / "new.png", level=11)
    assert changes(then, record(pictures)) == "the class ant had 4 images, and has 5 now"
    (pictures / "bee" / "003.png").unlink()
    assert changes(then, record(pictures)) == "the class ant had 4 images, and has 5 now"
    (pictures / "ant" / "new.png").rename(pictures / "bee" / "003.png")
    assert changes(then, record(pictures)) == (
        "there are other images now, or in another order: the pixels of those that were looked at differ"
    )
    (pictures / "cat").rename(pictures / "aunt")
    assert changes(then, record(pictures)) == "the classes are others now: cat is gone and aunt is new"


def test_names_and_sizes_of_files_alone_are_no_change_but_differ_between_processes(pictures: Path):
    then = record(pictures)
    (pictures / "ant" / "003.png").rename(pictures / "ant" / "004.png")
    now = record(pictures)
    assert changes(then, now) is None
    assert unlike([then, now]) == "the names and sizes of the files of rank 1 differ from those of rank 0"


def test_labels_in_another_order_are_a_change(tmp_path: Path):
    def of(labels: list[int]) -> DataRecord:
        np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8, 1), np.uint8), labels=np.array(labels))
        images = load_images(f"npz:{tmp_path / 'a.npz'}", resolution=8, channels=1, num_classes=None)
        return record_of(images, "npz:a.npz", seed=0)

    then, now = of([0, 0, 1, 1]), of([0, 1, 0, 1])
    assert changes(then, now) == "the labels come in another order now"
    assert unlike([then, then, now]) == "the labels of rank 2 differ from those of rank 0"
    assert then.listed_classes() is None  # the names are but the numbers


def test_one_level_of_one_pixel_of_an_image_that_is_looked_at_is_seen(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)  # all are: no more than 64
    records = []
    for _ in range(2):
        np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(60) % 3)
        images = load_images(f"npz:{tmp_path / 'a.npz'}", resolution=8, channels=1, num_classes=3)
        records.append(record_of(images, "npz:a.npz", seed=0))
        pixels[37, 5, 2] ^= 1
    assert unlike(records) == "the pixels of the images that were looked at of rank 1 differ from those of rank 0"


def test_of_many_images_64_are_read_which_the_seed_chooses(tmp_path: Path):
    np.savez(tmp_path / "a.npz", images=np.zeros((500, 8, 8), np.uint8), labels=np.arange(500) % 3)
    images = load_images(f"npz:{tmp_path / 'a.npz'}", resolution=8, channels=1, num_classes=3)
    asked: list[torch.Tensor] = []

    def watched(indices: torch.Tensor) -> torch.Tensor:
        asked.append(indices)
        return images.read_pixels(indices)

    for seed in (0, 0, 1):
        record_of(dataclasses.replace(images, read_pixels=watched), "npz:a.npz", seed=seed)
    assert [len(indices.unique()) for indices in asked] == [64, 64, 64]
    assert torch.equal(asked[0], asked[1])
    assert not torch.equal(asked[0], asked[2])
