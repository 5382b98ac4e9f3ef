"""Samples from an averaged generator: the same image for a given (seed, number, class, truncation) in any batch.

Tested in ``tests/engine/commands/test_sample.py``.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.distributed as dist
from einops import repeat
from torch import Tensor, nn

from gan_blocks import (
    Prior,
    SpectralNorm,
    TruncatedBatchNormStatistics,
    advance_power_iteration,
    collects_statistics,
    fold_spectral_norm,
    standing_statistics,
    truncated_prior,
)
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.parallel.processes import current_world, gather_rows
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.base.terminal.console import Progress
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.memory_format import to_channels_last
from gan_blocks.engine.sampling.inference import SamplingPrecision, for_inference, in_precision
from gan_blocks.engine.sampling.trained import TrainedGenerator

__all__ = [
    "POWER_ITERATIONS",
    "TruncationKind",
    "check_truncation",
    "class_sheet",
    "draw_latents",
    "draw_samples",
    "drawn_shape",
    "even_labels",
    "generate",
    "ready_generator",
    "sample_batches",
    "sampling_generator",
    "spread_classes",
    "truncated",
]

# Far more than a warm start needs: the average's singular vectors already follow its weights.
POWER_ITERATIONS = 20

TruncationKind = Literal["threshold", "scaled"]


def check_truncation(truncation: float | None, kind: TruncationKind | None = None) -> None:
    """Check the options ``--truncation`` and ``--truncation-by``.

    Raises:
        UserError: If the truncation is less than 0 or infinite, or there is a kind without a truncation.
    """
    if truncation is not None and not 0 <= truncation < math.inf:
        raise UserError(f"--truncation must be a finite number of at least 0, but got {truncation}.")
    if truncation is None and kind is not None:
        raise UserError("--truncation-by says what the number of --truncation means, but there is no --truncation.")


def truncated(
    trained: TrainedGenerator, truncation: float | None, kind: TruncationKind | None = None
) -> TrainedGenerator:
    """The same generator with its prior truncated, so that latents and standing statistics are of one distribution.

    Args:
        trained: The generator with the prior that it was trained with.
        truncation: How much; None: not at all.
        kind: What the number means (see ``gan_blocks.truncated_prior``); None: the paper's threshold, or what the
            tables of a converted generator are for.

    Raises:
        UserError: If a truncation is asked for and the prior is not normal, or the tables have no statistics for it.
    """
    if trained.tables is not None and truncation is not None:
        trained, kind = _with_statistics(trained, trained.tables, truncation, kind), "scaled"
    try:
        return replace(trained, prior=truncated_prior(trained.prior, truncation, method=kind or "threshold"))
    except TypeError:
        raise UserError("--truncation works for a normal latent only.") from None


def _with_statistics(
    trained: TrainedGenerator, tables: TruncatedBatchNormStatistics, truncation: float, kind: TruncationKind | None
) -> TrainedGenerator:
    """The same generator with the statistics for a truncation."""
    low, high = tables.truncations[0].item(), tables.truncations[-1].item()
    if kind == "threshold" or not low <= truncation <= high:
        what = f"its tables of statistics are for --truncation-by scaled from {low:g} to {high:g}"
        raise UserError(f"{trained.source} cannot be truncated to {truncation:g}: {what}.")
    average = copy.deepcopy(trained.average)
    tables.apply(average, truncation=truncation)
    return replace(trained, average=average)


def draw_samples(
    trained: TrainedGenerator, count: int, *, seed: int, classes: Sequence[int] = (), batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1] and labels of samples 0 to count - 1, which do not depend on ``batch_size``.

    Several processes generate a part each, and all of them get all images.

    Args:
        trained: The generator, with its prior and Config.
        count: How many.
        seed: Seed of the latents.
        classes: Classes to draw, equally often and in this order; none: all.
        batch_size: Images generated at once.
    """
    labels = even_labels(count, classes or range(trained.config.num_classes))
    images = torch.empty(0)
    for numbers, batch in sample_batches(trained, labels, seed=seed, batch_size=batch_size):
        if len(images) == 0:
            images = torch.empty(count, *batch.shape[1:])
        images[numbers] = batch
    return images, labels


def sample_batches(
    trained: TrainedGenerator, labels: Tensor, *, seed: int, batch_size: int = 64
) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers and images of all samples, a batch at a time; one process alone gives them in their order.

    Args:
        trained: The generator, with its prior and Config.
        labels: The class of each sample, int64 of shape ``(samples,)``.
        seed: Seed of the latents.
        batch_size: Images generated at once by each process.
    """
    world, model = current_world(), ready_generator(trained)
    shares = [share.split(min(batch_size, len(labels))) for share in torch.arange(len(labels)).tensor_split(world.size)]
    for turn in Progress(range(len(shares[0])), desc="sampling", unit="batch", delay=2, leave=False):
        # The first share is the longest; in the last turn others may have nothing to do.
        parts = [share[turn] if turn < len(share) else share[0][:0] for share in shares]
        own = parts[world.rank]
        z = _latents(trained.prior, own.tolist(), seed)
        yield torch.cat(parts), gather_rows(_images(model, z, labels[own]))


def even_labels(count: int, classes: Sequence[int]) -> Tensor:
    """Labels (count,) that name every class equally often, up to one, in the order of ``classes``."""
    return torch.tensor(list(classes))[torch.arange(count) * len(classes) // count]


def draw_latents(prior: Prior, count: int, *, seed: int) -> Tensor:
    """Latents (count, dim) of samples 0 to count - 1; each depends on the seed and its own number alone.

    Args:
        prior: The distribution that the generator was trained with, or that truncated.
        count: How many.
        seed: Seed of the samples.
    """
    return _latents(prior, range(count), seed)


def _latents(prior: Prior, numbers: Sequence[int], seed: int) -> Tensor:
    drawn = [prior.sample(1, generator=random_stream(seed, "sample", number)) for number in numbers]
    return torch.cat([torch.empty(0, prior.dim), *drawn])


def ready_generator(trained: TrainedGenerator) -> nn.Module:
    """The generator as :func:`sampling_generator` prepares it, a converted one as it is; everything folded."""
    precision = trained.precision
    if trained.converted:
        model = _folded(to_channels_last(copy.deepcopy(trained.average).eval()))
    else:
        model = sampling_generator(trained.average, trained.prior, trained.config, precision=precision)
    return for_inference(model, precision)


def _folded(model: nn.Module) -> nn.Module:
    """The model itself, with what spectral norm it has folded into its weights."""
    normalized = any(isinstance(module, SpectralNorm) for module in model.modules())
    return fold_spectral_norm(model) if normalized else model


def sampling_generator(
    average: nn.Module,
    prior: Prior,
    config: TrainingConfig,
    *,
    batches: int | None = None,
    precision: SamplingPrecision = "fp32",
) -> nn.Module:
    """A plain copy of the averaged generator, ready to sample (Appendix C.1).

    Where it has spectral norm, its singular vectors are converged on the averaged weights and folded into them. Its
    BatchNorm layers, where it has any, get standing statistics over ``batches`` batches (default: the Config's) of
    latents of ``prior``, which is to be the one that will be sampled, in the ``precision`` of that. The average itself
    does not change.

    Several processes, all of which have to call this, take turns with the batches.
    """
    model = to_channels_last(copy.deepcopy(average).eval())
    advance_power_iteration(model, n_power_iterations=POWER_ITERATIONS)
    _folded(model)
    if not collects_statistics(model):
        return model
    reference = next(model.parameters())

    def inputs(number: int) -> tuple[Tensor, Tensor]:
        z_stream, label_stream = (random_stream(config.seed, "standing", number, name) for name in ("z", "labels"))
        z = prior.sample(config.batch_size, generator=z_stream)
        labels = torch.randint(config.num_classes, (config.batch_size,), generator=label_stream)
        return z.to(reference), labels.to(reference.device)

    count = config.standing_batches if batches is None else batches
    world = current_world()
    own = range(world.rank, count, world.size)
    numbers = Progress(own, desc="standing statistics", unit="batch", delay=2, leave=False, disable=not world.is_main)
    group = dist.group.WORLD if world.size > 1 else None
    standing_statistics(in_precision(model, precision), (inputs(number) for number in numbers), process_group=group)
    return model


def drawn_shape(trained: TrainedGenerator) -> tuple[int, ...]:
    """Channels, height and width of what the generator draws, which may be still growing."""
    return tuple(_images(trained.average, draw_latents(trained.prior, 1, seed=0), torch.zeros(1).long()).shape[1:])


def generate(model: nn.Module, z: Tensor, classes: Tensor, *, batch_size: int = 64) -> Tensor:
    """Images in [-1, 1] for latents and classes, on the CPU in float32.

    Args:
        model: The generator.
        z: Latents, ``(images, dim)``.
        classes: Labels, int64 of shape ``(images,)``, or class weights, floating of shape ``(images, num_classes)``,
            for a generator that mixes classes.
        batch_size: Images generated at once.
    """
    size = min(batch_size, max(1, len(z)))  # a larger one is no number to torch
    parts = list(zip(torch.split(z, size), torch.split(classes, size), strict=True))
    bar = Progress(parts, desc="sampling", unit="batch", delay=2, leave=False)
    return torch.cat([_images(model, *part) for part in bar])


@torch.no_grad()
def _images(model: nn.Module, z: Tensor, classes: Tensor) -> Tensor:
    """One batch, on the CPU in float32, between -1 and 1 as it is shown and saved: not every G is bounded."""
    reference = next(model.parameters())
    dtype = torch.promote_types(reference.dtype, torch.float32)  # of what goes in where weights are in bfloat16
    classes = classes.to(reference.device, dtype if classes.is_floating_point() else classes.dtype)
    images: Tensor = model(z.to(reference.device, dtype), classes)
    return images.float().cpu().clamp(-1, 1)


def spread_classes(num_classes: int, most: int = 10) -> list[int]:
    """All classes, or ``most`` of them at even distances."""
    return [number * num_classes // min(most, num_classes) for number in range(min(most, num_classes))]


def class_sheet(
    model: nn.Module, prior: Prior, config: TrainingConfig, *, columns: int = 10
) -> tuple[Tensor, list[int]]:
    """Images for a sheet with one row a class and one latent a column, and the class of each row.

    Where there is one class, the sheet is a square of as many latents, and its rows have no class.
    """
    if config.num_classes == 1:
        z = draw_latents(prior, columns**2, seed=config.seed)
        return generate(model, z, torch.zeros(len(z), dtype=torch.int64)), []
    classes = spread_classes(config.num_classes)
    z = draw_latents(prior, columns, seed=config.seed)
    labels = torch.tensor(classes)
    images = generate(
        model, repeat(z, "column dim -> (row column) dim", row=len(classes)), labels.repeat_interleave(columns)
    )
    return images, classes
