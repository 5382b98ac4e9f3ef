from pathlib import Path

import numpy as np
import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images, with_mirror_images
from gan_blocks.engine.data.pixels import PixelLayout


def image_set(labels: list[int]) -> ImageSet:
    pixels = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    names = tuple(str(number) for number in range(max(labels) + 1))
    return ImageSet(lambda i: pixels.index_select(0, i), torch.tensor(labels), names, PixelLayout(2, 1))


def error_of(spec: str, resolution: int = 8, channels: int = 3, num_classes: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_images(spec, resolution=resolution, channels=channels, num_classes=num_classes)
    return str(caught.value)


CHOICES = (
    "mnist5k, stacked-mnist5k, fashion-mnist, fashion-mnist:PATH, cifar10:PATH, shards:PATH, npz:PATH, folder:PATH"
)


@pytest.mark.parametrize("spec", ["imagenet", "", "MNIST5K", "zip:x.zip", ":x", "x" * 5000])
def test_an_unknown_source_lists_those_there_are(spec: str):
    assert error_of(spec) == f"--data {spec}: unknown source; choose one of {CHOICES}."


def test_a_bare_path_is_answered_with_how_to_write_it(tmp_path: Path):
    (tmp_path / "x.npz").touch()
    assert error_of(str(tmp_path)).endswith(
        f" For a folder with one sub-folder a class write --data folder:{tmp_path}."
    )
    assert error_of(f"{tmp_path}/x.npz").endswith(f" For a file of arrays write --data npz:{tmp_path}/x.npz.")
    (tmp_path / "my images").mkdir()
    assert error_of(f"{tmp_path}/my images").endswith(f" write --data 'folder:{tmp_path}/my images'.")


@pytest.mark.parametrize("name", ["npz", "folder", "shards", "cifar10"])
@pytest.mark.parametrize("colon", ["", ":"])
def test_a_source_of_files_needs_a_path(name: str, colon: str):
    assert error_of(name + colon) == f"--data {name}{colon}: the source {name} needs a path: --data {name}:PATH."


def test_the_digits_take_no_path():
    assert error_of("mnist5k:x") == "--data mnist5k:x: the source mnist5k takes no path: --data mnist5k."


@pytest.mark.parametrize("name", ["npz", "folder", "shards", "cifar10", "fashion-mnist"])
def test_a_missing_path_is_named_in_full(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for path in ("no/such", "~nobody-of-this-name/x"):
        expected = f"there is no file or folder {tmp_path}/{path}; check the path."
        assert error_of(f"{name}:{path}") == f"--data {name}:{path}: {expected}"


def test_a_path_may_hold_colons_and_start_at_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "a:b.npz"
    np.savez(path, images=np.zeros((2, 8, 8), np.uint8), labels=np.arange(2))
    assert len(load_images("npz:~/a:b.npz", resolution=8, channels=1, num_classes=2)) == 2


@pytest.mark.parametrize(("resolution", "channels"), [(0, 3), (8, 2)])
def test_rejects_a_layout_that_no_image_has(resolution: int, channels: int):
    assert error_of("mnist5k", resolution, channels) == (
        "--data mnist5k: images have 1 or 3 channels and a resolution of at least 1, "
        f"not channels={channels}, resolution={resolution}."
    )


def test_rejects_networks_with_fewer_classes_than_the_data(tmp_path: Path):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3073) + bytes([1]) + bytes(3072))
    problem = "the data has 10 classes, but the networks have 7; to train on them give --num-classes 10."
    assert error_of(f"cifar10:{tmp_path}", num_classes=7) == f"--data cifar10:{tmp_path}: {problem}"


def test_a_batch_holds_the_asked_images_in_order_scaled_to_plus_minus_one():
    images = image_set([0, 1] * 128)
    pixels, labels = images.batch(torch.tensor([255, 0, 255, 51]))
    assert pixels.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert pixels[:, 0, 0, 0].tolist() == [1, -1, 1, pytest.approx(-0.6)]
    assert labels.tolist() == [1, 0, 1, 1]
    assert (len(images), images.num_classes, images.resolution, images.channels) == (256, 2, 2, 1)


def test_a_batch_split_over_ranks_is_the_same_batch():
    images = image_set(list(range(10)))
    indices = torch.tensor([7, 1, 9, 4, 4])
    parts = [images.batch(part) for part in indices.tensor_split(3)]
    whole = images.batch(indices)
    assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
    assert torch.equal(torch.cat([part[1] for part in parts]), whole[1])


def test_a_batch_is_the_callers_own():
    images = image_set([0, 1])
    images.batch(torch.tensor([0]))[0].fill_(5)
    assert (images.batch(torch.tensor([0]))[0] == -1).all()


@pytest.mark.parametrize("index", [-1, 2])
def test_rejects_an_index_out_of_range(index: int):
    with pytest.raises(IndexError, match="out of range"):
        image_set([0, 1]).batch(torch.tensor([index]))


def test_mirror_images_follow_the_originals(tiny_data: Path):
    images = load_images(f"npz:{tiny_data}", resolution=16, channels=1, num_classes=3)
    doubled = with_mirror_images(images)
    assert len(doubled) == 2 * len(images)
    count = len(images)
    numbers = torch.tensor([1, 1 + count, 0])
    batch, labels = doubled.batch(numbers)
    plain, plain_labels = images.batch(torch.tensor([1, 1, 0]))
    assert torch.equal(labels, plain_labels)
    assert torch.equal(batch[[0, 2]], plain[[0, 2]])
    assert torch.equal(batch[1], plain[1].flip(-1))
    assert not torch.equal(batch[1], plain[1])
    assert doubled.notes[-1] == f"each of {count} images is shown as it is and mirrored"


def test_one_class_takes_all_classes_of_the_data_as_one(tiny_data: Path):
    images = load_images(f"npz:{tiny_data}", resolution=16, channels=1, num_classes=1)
    assert images.class_names == ("all images",)
    assert not images.labels.any()
    assert images.notes[-1] == "the 3 classes of the data are taken as one"
