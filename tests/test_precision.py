import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch

from gan_blocks._precision import exact_products, full_precision


def test_full_precision_switches_autocast_off_and_passes_the_meta_device():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(x):
        assert (x @ x).dtype == torch.float32
    with full_precision(x.to("meta")):
        assert (x @ x).dtype == torch.float32


def settings() -> list[str]:
    return [torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision]


@pytest.fixture
def precision_restored() -> Iterator[None]:
    yield
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"
    torch.backends.fp32_precision = "none"


def ask_by_one_word() -> None:
    torch.set_float32_matmul_precision("medium")


def ask_cuda() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def ask_onednn() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


@pytest.mark.usefixtures("precision_restored")
@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="torch before 2.9 has one setting for all")
@pytest.mark.parametrize("ask", [ask_by_one_word, ask_cuda, ask_onednn])
def test_exact_products_hold_off_a_lower_precision_for_a_while(ask: Callable[[], None]):
    ask()
    asked = settings()
    assert set(asked) & {"tf32", "bf16"}
    with contextlib.suppress(KeyError), exact_products():
        assert not set(settings()) & {"tf32", "bf16"}
        raise KeyError
    assert settings() == asked
