import contextlib

import pytest
import torch

from gan_blocks._precision import exact_products, full_precision


def test_full_precision_switches_autocast_off_and_passes_the_meta_device():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(x):
        assert (x @ x).dtype == torch.float32
    with full_precision(x.to("meta")):
        assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize("asked", ["highest", "high", "medium"])
def test_exact_products_hold_off_a_lower_precision_for_a_while(asked: str):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(asked)
        with exact_products():
            inside = torch.get_float32_matmul_precision()
        assert (inside, torch.get_float32_matmul_precision()) == ("highest", asked)
        with contextlib.suppress(KeyError), exact_products():
            raise KeyError
        assert torch.get_float32_matmul_precision() == asked
    finally:
        torch.set_float32_matmul_precision(before)
