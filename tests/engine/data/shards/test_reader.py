import json
import os
import re
import resource
import shutil
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_blocks import NormalPrior
from gan_blocks.engine.base.parallel.processes import World
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.resampling import area_resample
from gan_blocks.engine.data.shards import reader as shard_reader
from gan_blocks.engine.data.shards.format import INDEX_NAME, IndexFormatError, StoreIndex
from gan_blocks.engine.data.shards.writer import ShardWriter
from gan_blocks.engine.recipe import batches
from gan_blocks.engine.recipe.options import RunOptions
from recipes.biggan_deep import Config
from tests.conftest import write_store
from tests.engine.data.reading import one_line_error

COUNT, SIDE, PER_SHARD = 23, 8, 5
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
LABELS = [number % 3 for number in range(COUNT)]
LAST = f"{SIDE}/shard_00004.zip"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
INDEX_OF_FIVE = json.dumps([{"name": LAST, "bytes": 1, "sha256": ""}] * 5)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """23 images in shards of 5, 5, 5, 5 and 3, at 8x8 and 2x2 pixels."""
    return write_store(tmp_path / "store", PIXELS, LABELS, shard_images=PER_SHARD, resolutions=(2,))


def load(store: Path, resolution: int = SIDE, channels: int = 3) -> ImageSet:
    return load_images(f"shards:{store}", resolution=resolution, channels=channels, num_classes=3)


def read(images: ImageSet, numbers: list[int]) -> Tensor:
    return images.read_pixels(torch.tensor(numbers))


def expected(numbers: list[int]) -> Tensor:
    return torch.from_numpy(PIXELS[numbers].transpose(0, 3, 1, 2).copy())


def test_every_image_is_found_by_its_number_in_any_order(store: Path):
    images = load(store)
    assert images.labels.tolist() == LABELS
    assert images.class_names == ("0", "1", "2")
    assert images.notes == ()
    numbers = [22, 0, 4, 5, 4, 21, *range(COUNT)]
    assert torch.equal(read(images, numbers), expected(numbers))
    assert read(images, []).shape == (0, 3, SIDE, SIDE)
    pixels, labels = images.batch(torch.tensor([7, 3]))
    assert torch.equal(pixels, expected([7, 3]) / 127.5 - 1)
    assert labels.tolist() == [1, 0]


def test_a_shard_is_a_plain_zip_file_that_numpy_opens_and_equal_images_give_equal_files(store: Path, tmp_path: Path):
    with zipfile.ZipFile(store / LAST) as archive:
        assert archive.namelist() == ["000000.npy", "000001.npy", "000002.npy"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None
    with np.load(store / LAST) as arrays:
        assert np.array_equal(arrays["000001"], PIXELS[21].transpose(2, 0, 1))
    again = write_store(tmp_path / "again", PIXELS, LABELS, shard_images=PER_SHARD, resolutions=(2,))
    files = sorted(path.relative_to(store) for path in store.rglob("*.*"))
    assert len(files) == 11
    assert all((store / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_nothing_but_the_index_is_read_before_an_image_is_asked_for(store: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    system_open = os.open
    monkeypatch.setattr(os, "open", lambda path, *flags: (opened.append(str(path)), system_open(path, *flags))[1])
    images = load(store)
    assert opened == []
    read(images, [0, 22, 4])
    assert sorted(opened) == [str(store / f"{SIDE}/shard_00000.zip"), str(store / LAST)]
    read(images, [1, 21])
    assert len(opened) == 2  # both have stayed open


@pytest.mark.parametrize("resolution", [1, 2, 3, 8, 16])
def test_the_stored_resolution_is_taken_or_the_next_larger_one_shrunk_by_area(store: Path, resolution: int):
    images = load(store, resolution)
    pixels = read(images, [20])[0]
    if resolution == 16:  # enlarged
        assert pixels.shape == (3, 16, 16)
        assert pixels.float().mean() == pytest.approx(PIXELS[20].mean(), abs=3)
    else:
        kept = area_resample(PIXELS[20], 2) if resolution < 2 else PIXELS[20]
        assert np.array_equal(pixels, area_resample(kept, resolution).transpose(2, 0, 1))
    stored = {1: 2, 2: 2, 3: 8, 8: 8, 16: 8}[resolution]
    note = f"images are stored as {stored} x {stored} RGB and brought to {resolution} x {resolution} RGB"
    assert images.notes == (() if resolution in (2, 8) else (f"{note} when they are read",))


def test_color_is_read_as_gray_where_the_networks_are_gray_and_the_other_way_round(store: Path, tmp_path: Path):
    luma = PIXELS[3] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read(load(store, channels=1), [3])[0, 0].numpy() - luma).max() <= 1
    gray = write_store(tmp_path / "gray", PIXELS[..., :1], LABELS, shard_images=9)
    assert torch.equal(read(load(gray), [3]), expected([3])[:, :1].expand(-1, 3, -1, -1))


def test_many_threads_and_more_shards_than_may_stay_open_get_the_same_pixels(
    store: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shard_reader, "_KEPT_OPEN", 2)
    images = load(store)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    draws = [torch.randint(COUNT, (40,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(20)]
    with ThreadPoolExecutor(4) as pool:
        for numbers, pixels in zip(draws, pool.map(lambda numbers: read(images, numbers), draws), strict=True):
            assert torch.equal(pixels, expected(numbers))
    assert len(list(descriptors.iterdir())) == before + 2


def test_a_process_forked_after_the_first_batch_reads_on_beside_its_parent(store: Path):
    images = load(store)
    read(images, list(range(COUNT)))  # threads and open files exist now
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forking beside threads
        child = os.fork()
    if child == 0:
        numbers = list(range(COUNT))[::-1]
        os._exit(0 if all(torch.equal(read(images, numbers), expected(numbers)) for _ in range(20)) else 1)
    for _ in range(20):
        assert torch.equal(read(images, [4, 20]), expected([4, 20]))
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("size", [2, 3])
def test_each_process_reads_the_images_of_its_part_of_the_batch_alone(
    store: Path, size: int, monkeypatch: pytest.MonkeyPatch
):
    config = Config(batch_size=12, discriminator_steps=1)
    places: list[tuple[int, int]] = []
    read_at = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: (places.append((args[0], args[2])), read_at(*args))[1])

    def shown(world: World) -> list[Tensor]:
        monkeypatch.setattr(batches, "current_world", lambda: world)
        source = batches.BatchSource(load(store), NormalPrior(4), config, RunOptions(device="cpu"))
        source.close()  # no reading ahead
        return [images for step in (1, 2, 3) for images, _ in source._read(step)]

    whole = shown(World())
    assert len(places) == 36
    places.clear()
    parts = [shown(World(rank, size)) for rank in range(size)]
    assert len(places) == 36  # together as many as one process
    for step, images in enumerate(whole):
        assert torch.equal(torch.cat([part[step] for part in parts]), images)


def test_a_folder_without_an_index_is_no_store_or_an_unfinished_one(store: Path):
    (store / INDEX_NAME).unlink()
    assert one_line_error(lambda: load(store)) == (
        f"--data shards:{store}: there is no {store}/index.json: the folder holds no store, or one that is not "
        "finished; the same gan-blocks prepare command as before finishes it."
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text[: len(text) // 2], "it is garbled"),
        (lambda text: "[]", "it is garbled"),
        (lambda text: text.replace('"channels"', '"canals"'), "it is garbled"),
        (lambda text: text.replace("shards 1", "shards 2"), "it is of the format 'gan_blocks shards 2', where this"),
        (lambda text: text.replace('"channels": 3', '"channels": 2'), "it contradicts itself"),
        (lambda text: json.dumps({**json.loads(text), "labels": LABELS[:-1]}), "it contradicts itself"),
        (lambda text: json.dumps({**json.loads(text), "labels": [3] * COUNT}), "it contradicts itself"),
        (lambda text: json.dumps({**json.loads(text), "images": [COUNT]}), "it contradicts itself"),
        (lambda text: '{"format":' * 100_000, "it is garbled"),
        (lambda text: text.replace('"class_names"', '"class_names": [' + "[" * 100_000), "it is garbled"),
        *(
            (lambda text, changed=changed: json.dumps({**json.loads(text), **changed}), "it is garbled")
            for changed in (
                {"class_names": [1, 2, 3]},
                {"class_names": "012"},
                {"class_names": None},
                {"channels": "3"},
                {"channels": True},
                {"labels": [0.5] * COUNT},
                {"labels": ["0"] * COUNT},
                {"labels": {}},
                {"images": [5.0, 5, 5, 5, 3]},
                {"images": 5},
                {"notes": 3},
                {"notes": [None]},
                {"made_from": []},
                {"shards": []},
                {"shards": {"8": 5}},
                {"shards": {"8": [1, 2, 3, 4, 5]}},
                {"shards": {"8": {"name": 1}}},
                {"shards": {"8": [{"name": LAST, "bytes": "many", "sha256": ""}] * 5}},
                {"shards": {"8": [{"name": "a\nb", "bytes": 1, "sha256": ""}] * 5}},
                {"shards": {"8": [{"name": LAST, "bytes": 1, "sha256": "", "directory_sha256": 3}] * 5}},
                {"shards": {"eight": []}},
            )
        ),
        *(
            (lambda text, changed=changed: json.dumps({**json.loads(text), **changed}), "it contradicts itself")
            for changed in (
                {"labels": [10**30] * COUNT},
                {"images": [-1, 6, 5, 5, 8]},
                {"shards": {}},
                {"shards": {"0": json.loads(INDEX_OF_FIVE)}},
            )
        ),
        (lambda text: LFS, "it is a Git LFS pointer, not the file itself: git lfs pull fetches it"),
        (lambda text: "", "it is empty"),
        (lambda text: "hello", "it is garbled"),
        (lambda text: text.replace("gan_blocks shards 1", "[31m" * 50), "it is of the format '[31m"),
    ],
)
def test_an_index_that_cannot_be_used_says_why(store: Path, change: Callable[[str], str], why: str):
    path = store / INDEX_NAME
    path.write_text(change(path.read_text()))
    message = one_line_error(lambda: load(store))
    assert message.startswith(f"--data shards:{store}: {path} cannot be used: {why}")
    assert message.endswith("; write the store again with gan-blocks prepare.")


def test_a_missing_or_shortened_shard_is_named_at_the_start(store: Path):
    path = store / LAST
    size = path.stat().st_size
    os.truncate(path, size - 1)
    assert one_line_error(lambda: load(store)) == (
        f"--data shards:{store}: the shard {path} is damaged: {size - 1:,} bytes instead of {size:,}; "
        "write the store again with gan-blocks prepare."
    )
    path.unlink()
    expected = f"the shard {path} is missing; write the store again with gan-blocks prepare."
    assert one_line_error(lambda: load(store)) == f"--data shards:{store}: {expected}"
    assert len(load(store, resolution=2)) == COUNT  # the other resolution is whole


def test_shards_that_were_swapped_are_noticed_at_the_start(store: Path):
    first, second = (store / f"{SIDE}/shard_0000{number}.zip" for number in (0, 1))
    contents = first.read_bytes(), second.read_bytes()
    assert len(contents[0]) == len(contents[1])
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])
    assert one_line_error(lambda: load(store)) == (
        f"--data shards:{store}: the shard {first} holds other images than were written there; "
        "write the store again with gan-blocks prepare."
    )
    index = StoreIndex.read(store)
    older = {
        side: tuple(replace(shard, directory_sha256="") for shard in files) for side, files in index.shards.items()
    }
    text = replace(index, shards=older).encode().decode()
    assert text.count('"directory_sha256": ""') == 10
    text = re.sub(r',\s*"directory_sha256": ""', "", text)  # as stores were before
    (store / INDEX_NAME).write_text(text)
    assert len(load(store)) == COUNT


def test_no_more_shards_stay_open_than_a_quarter_of_what_the_system_allows(
    store: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (13, 13))
    images = load(store)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    assert torch.equal(read(images, list(range(COUNT))), expected(list(range(COUNT))))
    assert len(list(descriptors.iterdir())) == before + 3
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    everything = load(store)
    read(everything, list(range(COUNT)))
    assert len(list(descriptors.iterdir())) == before + 3 + 5


def test_pipes_in_the_place_of_files_are_not_waited_for(store: Path):
    for name, why in (
        (LAST, f"the shard {store / LAST} is missing"),
        (INDEX_NAME, f"there is no {store / INDEX_NAME}"),
    ):
        (store / name).unlink()
        os.mkfifo(store / name)
        assert one_line_error(lambda: load(store)).startswith(f"--data shards:{store}: {why}")
    with pytest.raises(IndexFormatError, match=r"^it is no regular file$"):
        StoreIndex.read(store)


def test_a_shard_that_was_not_fetched_is_no_reason_to_write_the_store_again(store: Path):
    (store / LAST).write_text(LFS)
    why = "is a Git LFS pointer, not the file itself: git lfs pull fetches it"
    assert one_line_error(lambda: load(store)) == f"--data shards:{store}: the shard {store / LAST} {why}."


def test_one_wrong_byte_anywhere_in_an_entry_is_found_and_named(store: Path):
    path = store / LAST
    whole = path.read_bytes()
    stride = 30 + len("000000.npy") + 128 + 3 * SIDE * SIDE
    for byte in (0, 8, 14, 35, 45, 100, 30 + 10 + 128, stride - 1):
        path.write_bytes(whole[: stride + byte] + bytes([whole[stride + byte] ^ 1]) + whole[stride + byte + 1 :])
        images = load(store)
        assert torch.equal(read(images, [20, 22]), expected([20, 22]))
        assert one_line_error(lambda images=images: read(images, [20, 21])) == (
            f"--data shards:{store}: the shard {path} is damaged at its image 1; "
            "write the store again with gan-blocks prepare."
        )


def test_a_shard_that_is_cut_off_or_vanishes_later_is_named(store: Path):
    images = load(store)
    read(images, [20])
    os.truncate(store / LAST, 500)
    assert "shard_00004.zip is damaged at its image 2" in one_line_error(lambda: read(images, [22]))
    (store / f"{SIDE}/shard_00000.zip").unlink()
    message = one_line_error(lambda: read(images, [0]))
    assert message.endswith(f"{store}/{SIDE}/shard_00000.zip cannot be read: No such file or directory.")


def test_a_shard_may_be_empty_because_its_images_were_damaged(tmp_path: Path):
    store = write_store(tmp_path, PIXELS[:4], LABELS[:4], shard_images=2)
    with ShardWriter(store, f"{SIDE}/shard_empty.zip", PixelLayout(SIDE, 3)) as writer:
        empty = writer.finish()
    index = StoreIndex.read(store)
    first, second = index.shards[SIDE]
    shards = {SIDE: (empty, first, empty, second, empty)}
    (store / INDEX_NAME).write_bytes(replace(index, images=(0, 2, 0, 2, 0), shards=shards).encode())
    assert torch.equal(read(load(store), [0, 1, 2, 3]), expected([0, 1, 2, 3]))


def test_a_store_may_be_moved(store: Path, tmp_path: Path):
    shutil.move(store, tmp_path / "elsewhere")
    assert torch.equal(read(load(tmp_path / "elsewhere"), [9]), expected([9]))


def test_a_bare_path_of_a_store_is_answered_with_how_to_write_it(store: Path):
    message = one_line_error(lambda: load_images(str(store), resolution=8, channels=3, num_classes=3))
    assert message.endswith(f" For a prepared store write --data shards:{store}.")


def test_an_index_comes_back_as_it_was_written(store: Path):
    index = StoreIndex.read(store)
    assert index.images == (5, 5, 5, 5, 3)
    assert {size: len(files) for size, files in index.shards.items()} == {8: 5, 2: 5}
    assert (store / INDEX_NAME).read_bytes() == index.encode()


def test_a_shard_that_is_not_finished_leaves_nothing(tmp_path: Path):
    def fail() -> None:
        with ShardWriter(tmp_path, "8/shard_00000.zip", PixelLayout(8, 3)) as writer:
            writer.add(PIXELS[0].transpose(2, 0, 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list((tmp_path / "8").iterdir()) == []


def test_a_shard_takes_images_of_its_layout_only(tmp_path: Path):
    with (
        ShardWriter(tmp_path, "shard_00000.zip", PixelLayout(8, 3)) as writer,
        pytest.raises(ValueError, match=r"^ShardWriter: images must be uint8 \(3, 8, 8\), but got \(8, 8, 3\)\.$"),
    ):
        writer.add(PIXELS[0])
