"""A tiny data set and the smallest network, on which whole commands run in seconds."""

from pathlib import Path

import numpy as np
import pytest

TINY_NETWORK = [
    *("--resolution", "16", "--num-classes", "3", "--channels", "8", "--latent-dim", "6", "--embedding-dim", "5"),
    *("--generator-widths", "1", "1", "1", "--discriminator-widths", "1", "1", "1", "--attention-resolution", "8"),
    *("--batch-size", "8", "--standing-batches", "3", "--ema-start", "2", "--planned-steps", "4"),
]


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """60 grey images of 16x16 pixels in three classes: noise of three brightnesses."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 80, (60, 16, 16, 1)) + labels[:, None, None, None] * 80
    path = tmp_path / "tiny.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


@pytest.fixture
def tiny_args(tiny_data: Path) -> list[str]:
    """Options of recipes.biggan_deep that make a step take milliseconds."""
    return ["--data", f"npz:{tiny_data}", *TINY_NETWORK]
