import errno
import tempfile
from pathlib import Path

import pytest
import torch

from gan_blocks import Rows
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.evaluation import distances
from gan_blocks.engine.evaluation.classifier import train_classifier
from gan_blocks.engine.evaluation.image_rows import RealImages, SelectedImages, StoredImages, in_batches
from gan_blocks.engine.evaluation.neighbors import classifier_features
from gan_blocks.engine.evaluation.pairs import measure_pairs
from gan_blocks.engine.evaluation.patches import measure_patches
from gan_blocks.engine.evaluation.quality import measure_quality


@pytest.fixture
def real(tiny_data: Path) -> ImageSet:
    return load_images(f"npz:{tiny_data}", resolution=16, channels=1, num_classes=3)


@pytest.fixture
def generated(rng: torch.Generator) -> torch.Tensor:
    return torch.rand(24, 1, 16, 16, generator=rng) * 2 - 1


def stored(images: torch.Tensor) -> StoredImages:
    """In batches that come in any order."""
    numbers = torch.arange(len(images)).flip(0).split(5)
    return StoredImages(tuple(images.shape), ((some, images[some]) for some in numbers))


@pytest.mark.parametrize("kind", ["real", "selected", "stored"])
def test_each_kind_gives_the_images_of_a_tensor(kind: str, real: ImageSet, generated: torch.Tensor):
    everything = real.batch(torch.arange(60))[0]
    order = torch.tensor([59, 3, 3, 0])
    images: Rows
    images, expected = {
        "real": (RealImages(real), everything),
        "selected": (SelectedImages(RealImages(real), order), everything[order]),
        "stored": (stored(generated), generated),
    }[kind]
    assert len(images) == len(expected)
    assert images.shape == expected.shape
    assert images.device == expected.device
    numbers = torch.tensor([2, 0, 0])
    assert torch.equal(images[numbers], expected[numbers])
    batches = list(in_batches(images, 7))
    assert max(map(len, batches)) <= 7
    assert torch.equal(torch.cat(batches), expected)


def test_all_metrics_find_the_same_bits_in_batches_as_in_tensors(real: ImageSet, generated: torch.Tensor):
    labels, everything = torch.arange(24) % 3, real.batch(torch.arange(60))[0]
    sets = ((stored(generated), labels, RealImages(real), real.labels), (generated, labels, everything, real.labels))
    in_parts, at_once = (measure_quality(*of, num_classes=3, seed=0, epochs=1) for of in sets)
    assert in_parts == at_once
    in_parts, at_once = (measure_pairs(*of, pairs=9, seed=0) for of in sets)
    assert in_parts == at_once
    in_parts, at_once = (measure_patches(of[0], of[2], images=4, seed=0) for of in sets)
    assert in_parts == at_once


def test_no_part_asks_for_many_real_images_at_once(generated: torch.Tensor, monkeypatch: pytest.MonkeyPatch):
    """Neither the measures nor the classifier, whose training and test read batches."""
    asked: list[int] = []

    def read(numbers: torch.Tensor) -> torch.Tensor:
        asked.append(len(numbers))
        return (numbers % 251).byte()[:, None, None, None].expand(-1, 1, 16, 16)

    labels = torch.arange(300) % 3
    large = ImageSet(read, labels, ("0", "1", "2"), PixelLayout(16, 1))
    monkeypatch.setattr(distances, "MAX_BLOCK_ROWS", 100)
    measure_quality(generated, torch.arange(24) % 3, RealImages(large), labels, num_classes=3, seed=0, epochs=1)
    classifier_features(large, num_classes=3, seed=0)
    assert max(asked) <= 100


def test_a_classifier_learns_the_same_from_batches(real: ImageSet):
    in_parts, at_once = (
        train_classifier(images, real.labels, num_classes=3, seed=0, epochs=1).classifier.state_dict()
        for images in (RealImages(real), real.batch(torch.arange(60))[0])
    )
    assert all(torch.equal(in_parts[key], at_once[key]) for key in at_once)


def test_a_full_disk_is_one_line(generated: torch.Tensor, monkeypatch: pytest.MonkeyPatch):
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UserError, match=r"was not written: the disk mounted at .* is full"):
        stored(generated)
