"""How fast images are drawn from an averaged generator: as ``sample`` does, and the plain way.

``python -m benchmarks.sampling_speed`` draws from BigGAN-deep at 128x128 and the full width of 128, in batches of 4 and
of 16. The plain way is the generator in eval mode as it was trained, with spectral norm computed at each pass and NCHW.
"""

import argparse
import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.results import Ratio, Table, render_table, table
from benchmarks.suite import Turn
from benchmarks.timing import Case, add_clock_option, clock_of, machine, timed_apart
from gan_blocks.engine import Recipe, TrainingConfig
from gan_blocks.engine.base.devices import cpu_has_bf16
from gan_blocks.engine.base.memory import keep_freed_memory
from gan_blocks.engine.sampling.inference import SamplingPrecision, for_inference
from gan_blocks.engine.sampling.samples import draw_latents, generate, sampling_generator
from recipes import biggan_deep

__all__ = ["BATCHES", "SYSTEM", "prepared", "sampler", "sampling_table"]

SYSTEM = (biggan_deep.RECIPE, replace(biggan_deep.imagenet_128(), channels=128))
BATCHES = (4, 16)


def prepared(
    recipe: Recipe[Any], config: TrainingConfig, precision: SamplingPrecision = "fp32"
) -> tuple[nn.Module, nn.Module]:
    """A generator with statistics of one small batch, and what ``sample`` makes of it."""
    torch.manual_seed(0)
    generator = recipe.build_generator(config)
    config = replace(config, batch_size=4)
    ready = sampling_generator(generator, recipe.build_prior(config), config, batches=1)
    plain = copy.deepcopy(generator)
    buffers = dict(plain.named_buffers())
    for name, buffer in ready.named_buffers():  # so that both have statistics
        if name in buffers and buffers[name].shape == buffer.shape:
            buffers[name].copy_(buffer)
    return plain.eval(), for_inference(ready, precision)


def sampler(
    recipe: Recipe[Any], config: TrainingConfig, batch: int, *, plain: bool = False, bf16: bool = False
) -> Case:
    """What draws one batch, as ``sample`` does or the plain way."""
    if not plain:
        keep_freed_memory()  # as loading a trained generator does
    model = prepared(recipe, config, "bf16" if bf16 else "fp32")[0 if plain else 1]
    z = draw_latents(recipe.build_prior(config), batch, seed=0)
    labels = torch.arange(batch) % config.num_classes

    def draw(_number: int) -> object:
        return generate(model, z, labels, batch_size=batch)

    return draw


def sampling_table(
    recipe: Recipe[Any],
    config: TrainingConfig,
    batch: int,
    turn: Turn,
    *,
    others: dict[str, Callable[[], Case]] | None = None,
) -> Table:
    """All ways in turn, each in a process of its own."""
    ours = partial(sampler, recipe, config, batch)
    cases: dict[str, Callable[[], Case]] = {
        "ours, float32": ours,
        "plain way": partial(ours, plain=True),
        **(others or {}),
    }
    if cpu_has_bf16():
        cases["ours, bfloat16"] = partial(ours, bf16=True)
    measured = timed_apart(cases, turn.rounds, turn.clock, seconds=turn.seconds)
    ratios = [
        Ratio(other, ours) for other in ("plain way", *(others or {})) for ours in ("ours, float32", "ours, bfloat16")
    ]
    return table(f"{batch} samples of {config.resolution}x{config.resolution} by {recipe.name}", measured, ratios)


def main() -> None:
    """Measure both batches and print them."""
    parser = argparse.ArgumentParser(description="Speed of sampling.")
    parser.add_argument("--rounds", type=int, default=9, help="measurements, of which the median counts")
    add_clock_option(parser)
    options = parser.parse_args()
    print(machine())
    turn = Turn(clock_of(options), options.rounds, math.inf)
    for batch in BATCHES:
        print(render_table(sampling_table(*SYSTEM, batch, turn)), flush=True)


if __name__ == "__main__":
    main()
