"""BigGAN-128 at full width on a device: images per second and peak memory of ours and plain torch, by precision."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.results import Ratio, Table, table
from benchmarks.steps import plain_biggan
from benchmarks.steps.training_steps import TINY_SYSTEMS, trainer
from benchmarks.timing import timed_in_turn
from gan_blocks.engine.recipe.options import RunOptions
from recipes import biggan

__all__ = ["speed_tables"]

CHANNELS, BATCH = 96, 64


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds, once the device has done what it was given."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return now


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def speed_tables(device: torch.device, *, bf16: bool, tiny: bool, rounds: int = 5, batch: int = BATCH) -> list[Table]:
    """Steps with 2 updates of D in turn, and on a GPU the most memory that each of them takes.

    Args:
        device: Where to train.
        bf16: In bfloat16; else in float32 without and with TF32, by the same networks, which take a while to build.
        tiny: Whether to take small networks, to try this itself.
        rounds: How many count.
        batch: Images in a batch.
    """
    recipe, config = TINY_SYSTEMS["BigGAN-128"]
    channels = 8
    if not tiny:
        recipe, channels = biggan.RECIPE, CHANNELS
        config = replace(biggan.imagenet_128(), channels=channels, generator_orthogonal_penalty=0.0)
    batch = 2 if tiny else batch
    config = replace(config, batch_size=batch)
    options = RunOptions(device=device.type, precision="bf16" if bf16 else "fp32")
    cases: dict[str, Callable[[int], object]] = {
        "ours": trainer(recipe, config, options=options),
        "plain torch": plain_biggan.trainer(channels, batch=batch, device=device, bf16=bf16),
    }
    tables = []
    for precision in ("bfloat16",) if bf16 else ("float32", "float32 with TF32"):
        _allow_tf32("TF32" in precision)
        try:
            measured = timed_in_turn(cases, rounds, _clock(device))
            memory = {name: [_peak(case)] for name, case in cases.items()} if device.type == "cuda" else {}
        finally:
            _allow_tf32(False)
        images = batch * config.discriminator_steps
        rates = {name: [images / seconds for seconds in each] for name, each in measured.items()}
        title = (
            f"BigGAN-128 of {channels} channels, batch {batch}, {config.discriminator_steps} updates of D, {precision}"
        )
        ratios = [Ratio("ours", "plain torch")]
        tables.append(table(f"{title}: real images a second", rates, ratios, unit="images/s"))
        if memory:
            tables.append(table(f"{title}: peak memory beyond all networks", memory, ratios, unit="MiB"))
    return tables


def _peak(case: Callable[[int], object]) -> float:
    """MiB that a step takes on the GPU beyond what is there before it: weights, averages and optimizers of both are."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    case(1)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20
