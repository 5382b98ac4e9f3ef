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


@pytest.fixture(autouse=True)
def fixed_initial_weights() -> None:
    """Layers draw their first weights from the global generator; a failure must come again when it is looked at."""
    torch.manual_seed(0)


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator: no test may depend on the global one."""
    return torch.Generator().manual_seed(0)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name binary values by their length: archives hold the time, and the processes of one session must agree."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) and not val.isascii() else None
