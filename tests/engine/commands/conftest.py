"""Small pictures to prepare, and a disk that is not waited for."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # it guards against power failures, not against kills


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of several forms in two classes."""
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (9 + number, 14, 3), dtype=np.uint8)
        path = tmp_path / "pictures" / ("cat", "ant")[number % 2] / f"{number:02}.{('jpg', 'png')[number % 3 == 0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"
