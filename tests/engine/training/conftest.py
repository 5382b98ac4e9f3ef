"""The Config of the tests of updates."""

import dataclasses
from pathlib import Path

import pytest

from recipes import sngan
from tests.engine.training.updates import CONFIG


@pytest.fixture
def config(tiny_data: Path) -> sngan.Config:
    return dataclasses.replace(CONFIG, data=f"npz:{tiny_data}")
