import torch

from gan_blocks._precision import full_precision


def test_full_precision_switches_autocast_off_and_passes_the_meta_device():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(x):
        assert (x @ x).dtype == torch.float32
    with full_precision(x.to("meta")):
        assert (x @ x).dtype == torch.float32
