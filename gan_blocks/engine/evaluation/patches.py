"""The sliced Wasserstein distance from samples to real images, beside two distances that say how small it could be.

Tested in ``tests/engine/evaluation/test_patches.py``.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_blocks import Rows, sliced_wasserstein_distance
from gan_blocks.engine.base.checks import Fields, require_at_least
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.features.cache import MEASURED_ANEW, RealFigures
from gan_blocks.engine.evaluation.image_rows import SelectedImages, in_batches
from gan_blocks.engine.evaluation.metric import Metric, Plan, Samples

__all__ = [
    "SLICED_WASSERSTEIN",
    "PatchReport",
    "box_blurred",
    "check_patch_sizes",
    "check_real_images",
    "measure_patches",
]

BATCH_SIZE = 256  # bounds the memory of the pyramids, and changes nothing else


@dataclass(frozen=True)
class PatchReport:
    """Sliced Wasserstein distances to the same real images, times 1,000, by resolution of the level, finest first.

    Attributes:
        images: Images of each set.
        samples: Distance of the generated images.
        real: Distance of other real images: the floor.
        blurred: Distance of these others blurred by a 3x3 box.
    """

    images: int
    samples: dict[int, float]
    real: dict[int, float]
    blurred: dict[int, float]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON, with the mean over the levels."""
        values = {
            name: {str(level): distance for level, distance in _with_mean(value).items()}
            if isinstance(value, dict)
            else value
            for name, value in asdict(self).items()
        }
        return {f"sliced_wasserstein_{name}": value for name, value in values.items()}

    def lines(self) -> list[str]:
        """Render for a console of 100 columns."""
        rows = {
            "samples": self.samples,
            "other real images": self.real,
            "these, blurred by a 3x3 box": self.blurred,
        }
        levels = [level if level == "mean" else f"{level}x{level}" for level in _with_mean(self.samples)]
        title = f"  sliced Wasserstein distance x 1,000 from {self.images:,} real images to as many"
        return [
            title,
            " " * 32 + "".join(f"{level:>9}" for level in levels),
            *(f"    {name:<28}" + "".join(f"{d:9.2f}" for d in _with_mean(row).values()) for name, row in rows.items()),
        ]


def measure_patches(
    generated: Rows, real: Rows, *, images: int, seed: int, figures: RealFigures = MEASURED_ANEW
) -> PatchReport:
    """Measure the distances between sets of ``images`` images, chosen at random as a function of the seed.

    Real images are compared with generated ones, with other real ones, and with these others blurred, so that all three
    distances are between images that have nothing to do with each other.

    Args:
        generated: Generated images in [-1, 1], of shape ``(images, channels, size, size)``, at least ``images``.
        real: Real images, at least twice as many.
        images: Images of each set.
        seed: Seed of the choice of images, of the patches and of the projections.
        figures: Keeps what is found of the real images.

    Raises:
        UserError: If there are too few images, or their size is not 16 doubled any number of times.
    """
    check_patch_sizes(images, len(generated), real.shape[-1])
    check_real_images(images, len(real))

    def distance(others: Iterable[Tensor]) -> dict[int, float]:
        # Patches and projections start alike for all three, so that these are compared rather than their luck.
        stream = random_stream(seed, "sliced Wasserstein distance")
        return sliced_wasserstein_distance(in_batches(compared, BATCH_SIZE), others, generator=stream)

    order = torch.randperm(len(real), generator=random_stream(seed, "sliced Wasserstein distance", "real"))
    compared, other_real = (SelectedImages(real, some) for some in (order[:images], order[images : 2 * images]))
    order = torch.randperm(len(generated), generator=random_stream(seed, "sliced Wasserstein distance", "generated"))
    samples = distance(in_batches(SelectedImages(generated, order[:images]), BATCH_SIZE))

    def of_real(name: str, others: Callable[[], Iterable[Tensor]]) -> dict[int, float]:
        levels = figures("patches", (name, images, seed), lambda: list(distance(others()).values()))
        return dict(zip(samples, levels, strict=True))

    return PatchReport(
        images=images,
        samples=samples,
        real=of_real("real", lambda: in_batches(other_real, BATCH_SIZE)),
        blurred=of_real("blurred", lambda: map(box_blurred, in_batches(other_real, BATCH_SIZE))),
    )


def check_patch_sizes(images: int, generated: int, size: int) -> None:
    """Check what can be known before anything is computed.

    Raises:
        UserError: If fewer images are generated than measured, or the size is not 16 doubled.
    """
    if images > generated:
        raise UserError(f"--swd must be at most the number of samples, {generated:,}, but got {images}.")
    if size % 16 or (size // 16).bit_count() != 1:
        raise UserError(f"--swd needs images of 16, 32, 64, ... pixels, but these have {size}x{size}.")


def check_real_images(images: int, real: int) -> None:
    """Check that there are enough real images to compare with each other.

    Raises:
        UserError: If there are not.
    """
    if 2 * images > real:
        halves = "half of them to compare the other half with"
        raise UserError(f"--swd {images} needs {2 * images:,} real images, {halves}, but there are {real:,}.")


def box_blurred(images: Tensor) -> Tensor:
    """Replace each pixel by the mean of the 3x3 pixels around it; beyond the border the edge is repeated."""
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel_size=3, stride=1)


def _with_mean(distances: Mapping[int, float]) -> dict[int | str, float]:
    levels: dict[int | str, float] = dict(distances.items())
    return levels | {"mean": statistics.fmean(distances.values())}


@dataclass(frozen=True)
class SlicedWassersteinOptions(Fields):
    """The sliced Wasserstein distance of ProGAN's paper."""

    swd: int = 0
    """Images of each set for the sliced Wasserstein distance, at most --num and half of the real ones; 0: none."""

    def __post_init__(self) -> None:
        """Check the value."""
        super().__post_init__()
        require_at_least(self, 0, "swd")


def _check(options: SlicedWassersteinOptions, plan: Plan) -> None:
    if options.swd:
        check_patch_sizes(options.swd, plan.num, plan.config.resolution)
        check_real_images(options.swd, len(plan.real))


def _measure(options: SlicedWassersteinOptions, samples: Samples) -> PatchReport | None:
    if not options.swd:
        return None
    return measure_patches(
        samples.generated, samples.real, images=options.swd, seed=samples.seed, figures=samples.figures
    )


SLICED_WASSERSTEIN = Metric(name="sliced_wasserstein", options=SlicedWassersteinOptions, check=_check, measure=_measure)
