"""A tiny data set and the smallest network, on which whole commands run in seconds."""

from pathlib import Path

import numpy as np
import pytest

from recipes import biggan_deep

TINY_NETWORK = [
    *("--resolution", "16", "--num-classes", "3", "--channels", "8", "--latent-dim", "6", "--embedding-dim", "5"),
    *("--generator-widths", "1", "1", "1", "--discriminator-widths", "1", "1", "1", "--attention-resolution", "8"),
    *("--batch-size", "8", "--standing-batches", "3", "--ema-start", "2", "--planned-steps", "4"),
]


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """60 grey images of 16x16 pixels in three classes: noise of three brightnesses."""
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
    assert biggan_deep.main([*args, "--run-dir", str(folder / "run"), "--steps", "3"]) == 0
    return folder / "run"


def write_tiny_data(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 80, (60, 16, 16, 1)) + labels[:, None, None, None] * 80
    path = folder / "tiny.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path
