"""Samples from an averaged generator: the same image for a given (seed, number, class, truncation) in any batch."""

import copy
from collections.abc import Sequence

import torch
from einops import repeat
from torch import Tensor, nn
from tqdm import tqdm

from gan_blocks import (
    NormalPrior,
    Prior,
    SpectralNorm,
    advance_power_iteration,
    fold_spectral_norm,
    standing_statistics,
    truncated_normal,
)
from recipes._engine.errors import UserError
from recipes._engine.random_streams import random_stream
from recipes._engine.recipe import RecipeConfig
from recipes._engine.trained import TrainedGenerator

__all__ = [
    "check_truncation",
    "class_sheet",
    "draw_latents",
    "draw_samples",
    "even_labels",
    "generate",
    "sampling_generator",
    "spread_classes",
]

# Far more than a warm start needs: the average's singular vectors already follow its weights.
POWER_ITERATIONS = 20


def check_truncation(truncation: float | None) -> None:
    """Check a ``--truncation`` option.

    Raises:
        UserError: If it is not greater than 0.
    """
    if truncation is not None and not truncation > 0:
        raise UserError(f"--truncation must be greater than 0, but got {truncation}.")


def draw_samples(
    trained: TrainedGenerator,
    count: int,
    *,
    seed: int,
    classes: Sequence[int] = (),
    truncation: float | None = None,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Images and labels of samples 0 to count - 1, which do not depend on ``batch_size``.

    Args:
        trained: The generator, with its prior and Config.
        count: How many.
        seed: Seed of the latents.
        classes: Classes to draw, equally often and in this order; none: all.
        truncation: As in :func:`draw_latents`; the standing statistics are of such latents, too.
        batch_size: Images generated at once.
    """
    model = sampling_generator(trained.average, trained.prior, trained.config, truncation=truncation)
    labels = even_labels(count, classes or range(trained.config.num_classes))
    z = draw_latents(trained.prior, count, seed=seed, truncation=truncation)
    return generate(model, z, labels, batch_size=batch_size), labels


def even_labels(count: int, classes: Sequence[int]) -> Tensor:
    """Labels (count,) that name every class equally often, up to one, in the order of ``classes``."""
    return torch.tensor([classes[number * len(classes) // count] for number in range(count)])


def draw_latents(prior: Prior, count: int, *, seed: int, truncation: float | None = None) -> Tensor:
    """Latents (count, dim) of samples 0 to count - 1; each depends on the seed and its own number alone.

    Args:
        prior: The distribution that the generator was trained with.
        count: How many.
        seed: Seed of the samples.
        truncation: Resample every component beyond this many standard deviations (section 3.1); None: none.

    Raises:
        UserError: If a truncation is asked for and the prior is not normal.
    """
    return torch.cat([_draw(prior, 1, truncation, random_stream(seed, "sample", number)) for number in range(count)])


def sampling_generator(
    average: nn.Module,
    prior: Prior,
    config: RecipeConfig,
    *,
    truncation: float | None = None,
    batches: int | None = None,
) -> nn.Module:
    """A plain copy of the averaged generator, ready to sample (Appendix C.1).

    Its singular vectors are converged on the averaged weights and folded into them, and its BatchNorm layers get
    standing statistics over ``batches`` batches (default: the Config's) of such latents as will be sampled. The average
    itself does not change.
    """
    model = copy.deepcopy(average).eval()
    advance_power_iteration(model, num_iterations=POWER_ITERATIONS)
    if any(isinstance(module, SpectralNorm) for module in model.modules()):  # not so in every recipe
        fold_spectral_norm(model)
    reference = next(model.parameters())

    def inputs(number: int) -> tuple[Tensor, Tensor]:
        z_stream, label_stream = (random_stream(config.seed, "standing", number, name) for name in ("z", "labels"))
        z = _draw(prior, config.batch_size, truncation, z_stream)
        labels = torch.randint(config.num_classes, (config.batch_size,), generator=label_stream)
        return z.to(reference), labels.to(reference.device)

    count = config.standing_batches if batches is None else batches
    numbers = tqdm(range(count), desc="standing statistics", unit="batch", delay=2, leave=False)
    standing_statistics(model, (inputs(number) for number in numbers))
    return model


def _draw(prior: Prior, count: int, truncation: float | None, stream: torch.Generator) -> Tensor:
    if truncation is None:
        return prior.sample(count, generator=stream)
    if not isinstance(prior, NormalPrior):
        raise UserError("--truncation works for a normal latent only.")
    return prior.std * truncated_normal(count, prior.dim, threshold=truncation, generator=stream)


@torch.no_grad()
def generate(model: nn.Module, z: Tensor, labels: Tensor, *, batch_size: int = 64) -> Tensor:
    """Images for latents and labels, on the CPU in float32."""
    reference = next(model.parameters())
    parts = list(zip(torch.split(z, batch_size), torch.split(labels, batch_size), strict=True))
    images = [
        model(z_part.to(reference), labels_part.to(reference.device)).float().cpu()
        for z_part, labels_part in tqdm(parts, desc="sampling", unit="batch", delay=2, leave=False)
    ]
    return torch.cat(images)


def spread_classes(num_classes: int, most: int = 10) -> list[int]:
    """All classes, or ``most`` of them at even distances."""
    return [number * num_classes // min(most, num_classes) for number in range(min(most, num_classes))]


def class_sheet(model: nn.Module, prior: Prior, config: RecipeConfig, *, columns: int = 10) -> tuple[Tensor, list[int]]:
    """Images for a sheet with one row a class and one latent a column, and the class of each row."""
    classes = spread_classes(config.num_classes)
    z = draw_latents(prior, columns, seed=config.seed)
    labels = torch.tensor(classes)
    images = generate(
        model, repeat(z, "column dim -> (row column) dim", row=len(classes)), labels.repeat_interleave(columns)
    )
    return images, classes
