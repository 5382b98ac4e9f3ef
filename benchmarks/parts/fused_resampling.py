"""From which size on a 3x3 convolution beside a change of resolution is faster as one 4x4 convolution of stride 2.

``python -m benchmarks.parts.fused_resampling`` times both ways in turn, forward and backward, in float32 and under
bfloat16 autocast, channels_last, at sizes of BigGAN and of the networks for digits; then whole steps of BigGAN-128 (ch
32, batch 8) and of the demo with and without. It prints the median of the ratios, plain over fused.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.steps.training_steps import SYSTEMS, changed, trainer, unfused
from benchmarks.timing import add_clock_option, clock_of, machine, timed_in_turn
from gan_blocks import conv2d_downsample, upsample_conv2d

WAYS = {"plain": False, "fused": True}
SIZES = [  # channels in and out, side of the smaller map, batch
    *((512, 512, 4, 8), (512, 256, 8, 8), (256, 256, 8, 8), (256, 128, 16, 8), (128, 64, 32, 8), (64, 32, 64, 8)),
    *((128, 64, 4, 16), (64, 64, 8, 16), (64, 32, 16, 16)),
]


def main() -> None:
    """Time all sizes, then whole steps."""
    parser = argparse.ArgumentParser(description="Fused resampling against the plain way.")
    parser.add_argument("--rounds", type=int, default=9, help="measurements, of which the median counts")
    add_clock_option(parser)
    options = parser.parse_args()
    clock = clock_of(options)
    print(machine())
    for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        for channels_in, channels_out, side, batch in SIZES:
            ratios = []
            for scale, way in ((1, upsample_conv2d), (2, conv2d_downsample)):
                conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
                x = torch.randn(batch, channels_in, scale * side, scale * side)
                x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
                cases = {name: _worker(partial(way, conv, x, fused=fused), dtype) for name, fused in WAYS.items()}
                ratios.append(_ratio(cases, options.rounds, clock))
            sizes = f"{channels_in:4} -> {channels_out:3}, {side:2}x{side:<2} and {2 * side:3}x{2 * side:<3}"
            print(f"{name:8} {sizes}, batch {batch:2}: up {ratios[0]:.2f}, down {ratios[1]:.2f}", flush=True)
    for name in ("BigGAN-128", "demo"):
        recipe, config = SYSTEMS[name]
        cases = {"plain": trainer(changed(recipe, unfused), config), "fused": trainer(recipe, config)}
        print(f"step of {name}: {_ratio(cases, options.rounds, clock):.2f}", flush=True)


def _ratio(cases: dict[str, Callable[[int], None]], rounds: int, clock: Callable[[], float]) -> float:
    times = timed_in_turn(cases, rounds, clock)
    return statistics.median(one / other for one, other in zip(times["plain"], times["fused"], strict=True))


def _worker(work: Callable[[], Tensor], dtype: torch.dtype | None) -> Callable[[int], None]:
    def working(_number: int) -> None:
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            work().sum().backward()

    return working


if __name__ == "__main__":
    main()
