"""A tiny data set and the smallest network, on which whole commands run in seconds; the documentation, built once."""

import fcntl
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.trials.tiny_data import write_data
from gan_blocks.engine.base.files import replace_durably
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.data.resampling import area_resample
from gan_blocks.engine.data.shards.format import INDEX_NAME, StoreIndex, shard_name
from gan_blocks.engine.data.shards.writer import ShardWriter
from recipes import biggan_deep

TINY_NETWORK = [
    *("--resolution", "16", "--num-classes", "3", "--channels", "8", "--latent-dim", "6", "--embedding-dim", "5"),
    *("--generator-widths", "1", "1", "1", "--discriminator-widths", "1", "1", "1", "--attention-resolution", "8"),
    *("--batch-size", "8", "--standing-batches", "3", "--ema-start", "2", "--planned-steps", "4"),
]


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """60 gray images of 16x16 pixels in three classes: noise of three brightnesses."""
    return write_tiny_data(tmp_path)


@pytest.fixture
def tiny_args(tiny_data: Path) -> list[str]:
    """Options of recipes.biggan_deep that make a step take milliseconds."""
    return ["--data", f"npz:{tiny_data}", *TINY_NETWORK]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of three steps with these, trained once for all tests that only read it."""
    folder = tmp_path_factory.mktemp("tiny")
    args = ["--data", f"npz:{write_tiny_data(folder)}", *TINY_NETWORK]
    assert biggan_deep.RECIPE.main([*args, "--run-dir", str(folder / "run"), "--steps", "3"]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def built_docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the documentation, built once for all processes of the tests; it takes minutes."""
    root = Path(__file__).parents[1]
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = shared / "documentation"
    with (shared / "documentation.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", "-j", "2", "docs"]
            command.append(str(shared / "building"))
            environment = {**os.environ, "PYTHONPATH": str(root)}
            done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            (shared / "building").rename(out)
    return out


def write_tiny_data(folder: Path) -> Path:
    return write_data(folder / "tiny.npz")


def write_store(
    folder: Path, images: np.ndarray, labels: list[int], *, shard_images: int, resolutions: tuple[int, ...] = ()
) -> Path:
    """A store of square images (number, side, side, channels), also shrunk by averaging blocks."""
    sides = (images.shape[1], *resolutions)
    starts = range(0, len(images), shard_images)
    shards = {}
    for side in sides:
        layout = PixelLayout(side, images.shape[3])
        files = []
        for number, start in enumerate(starts):
            with ShardWriter(folder, f"{side}/{shard_name(number)}", layout) as writer:
                for image in images[start : start + shard_images]:
                    writer.add(area_resample(image, side).transpose(2, 0, 1))
                files.append(writer.finish())
        shards[side] = tuple(files)
    index = StoreIndex(
        channels=images.shape[3],
        class_names=tuple(str(label) for label in range(max(labels) + 1)),
        labels=labels,
        images=tuple(len(images[start : start + shard_images]) for start in starts),
        shards=shards,
        notes=(),
        made_from={},
    )
    replace_durably(folder / INDEX_NAME, index.encode())
    return folder


def zip_of(name: str) -> bytes:
    """A zip archive of one empty file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"")
    return buffer.getvalue()
