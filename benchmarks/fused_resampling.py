"""From which size on a 3x3 convolution beside a change of resolution is faster as one 4x4 convolution of stride 2.

``python -m benchmarks.fused_resampling`` times both ways in turn, forward and backward, in float32 and under bfloat16
autocast, channels_last, at sizes of BigGAN and of the networks for digits; then whole steps of BigGAN-128 (ch 32, batch
8) and of the demo with and without. It prints the median of the ratios, plain over fused.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.training_steps import timed_in_turn, trainer
from gan_blocks.layers import _fused_resampling
from gan_blocks.layers._fused_resampling import conv_of_upsampled, downsampled_conv
from gan_blocks.layers.resampling import downsample_average, upsample_nearest
from recipes import biggan, biggan_deep

SIZES = [  # channels in and out, side of the smaller map, batch
    *((512, 512, 4, 8), (512, 256, 8, 8), (256, 256, 8, 8), (256, 128, 16, 8), (128, 64, 32, 8), (64, 32, 64, 8)),
    *((128, 64, 4, 16), (64, 64, 8, 16), (64, 32, 16, 16)),
]
ALWAYS, NEVER = 1, 10**9


def main() -> None:
    """Time all sizes, then whole steps."""
    parser = argparse.ArgumentParser(description="Fused resampling against the plain way.")
    parser.add_argument("--rounds", type=int, default=9, help="measurements, of which the median counts")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time: on a busy machine, with one thread")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        for channels_in, channels_out, side, batch in SIZES:
            ratios = []
            for scale, fused, plain in ((1, conv_of_upsampled, _plain_up), (2, downsampled_conv, _plain_down)):
                conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
                x = torch.randn(batch, channels_in, scale * side, scale * side)
                x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
                cases = {"plain": _worker(plain, conv, x, dtype), "fused": _worker(fused, conv, x, dtype)}
                ratios.append(_ratio(cases, options.rounds, clock, smallest=ALWAYS))
            sizes = f"{channels_in:4} -> {channels_out:3}, {side:2}x{side:<2} and {2 * side:3}x{2 * side:<3}"
            print(f"{name:8} {sizes}, batch {batch:2}: up {ratios[0]:.2f}, down {ratios[1]:.2f}", flush=True)
    large = replace(biggan.imagenet_128(), channels=32, batch_size=8, discriminator_steps=1)
    for name, recipe, config in (
        ("BigGAN-128, ch 32, batch 8", biggan.RECIPE, large),
        ("BigGAN-deep, mnist5k-32", biggan_deep.RECIPE, biggan_deep.RECIPE.presets["mnist5k-32"]()),
    ):
        smallest = _fused_resampling._SMALLEST
        step = trainer(recipe, config)
        cases = {"plain": _with_smallest(step, NEVER), "fused": _with_smallest(step, smallest)}
        print(f"step of {name}: {_ratio(cases, options.rounds, clock):.2f}", flush=True)


def _ratio(
    cases: dict[str, Callable[[int], None]], rounds: int, clock: Callable[[], float], *, smallest: int | None = None
) -> float:
    before = _fused_resampling._SMALLEST
    _fused_resampling._SMALLEST = before if smallest is None else smallest
    try:
        times = timed_in_turn(cases, rounds, clock)
    finally:
        _fused_resampling._SMALLEST = before
    return statistics.median(one / other for one, other in zip(times["plain"], times["fused"], strict=True))


def _with_smallest(step: Callable[[int], None], smallest: int) -> Callable[[int], None]:
    def stepping(number: int) -> None:
        before = _fused_resampling._SMALLEST
        _fused_resampling._SMALLEST = smallest
        step(number)
        _fused_resampling._SMALLEST = before

    return stepping


def _worker(
    way: Callable[[nn.Module, Tensor], Tensor], conv: nn.Module, x: Tensor, dtype: torch.dtype | None
) -> Callable[[int], None]:
    def work(_number: int) -> None:
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            way(conv, x).sum().backward()

    return work


def _plain_up(conv: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = conv(upsample_nearest(x))
    return y


def _plain_down(conv: nn.Module, x: Tensor) -> Tensor:
    return downsample_average(conv(x))


if __name__ == "__main__":
    main()
