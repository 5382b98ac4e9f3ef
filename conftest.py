"""Settings that every test shares."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("gan_blocks", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("gan_blocks")
# Two workers run side by side on small machines; more threads than cores only slow both down.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["torch"] = torch


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator: no test may depend on the global one."""
    return torch.Generator().manual_seed(0)
