"""The mean similarity of pairs of samples, which is higher the less a generator varies, beside that of real images.

Tested in ``tests/engine/evaluation/test_pairs.py``.
"""

import statistics
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from gan_blocks import Rows, multiscale_ssim
from gan_blocks.engine.base.checks import Fields, require, require_at_least
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.features.cache import MEASURED_ANEW, RealFigures
from gan_blocks.engine.evaluation.metric import Metric, Plan, Samples

__all__ = ["MS_SSIM", "PairReport", "check_pair_size", "measure_pairs", "random_pairs"]

PAIRS_AT_ONCE = 64
MOST_PAIRS = 10_000_000  # whose numbers take 160 MB


@dataclass(frozen=True)
class PairReport:
    """Mean MS-SSIM of pairs of one class.

    Attributes:
        pairs: Number of pairs.
        samples: Of generated images.
        real: Of real images.
    """

    pairs: int
    samples: float
    real: float

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {f"ms_ssim_{name}": value for name, value in asdict(self).items()}

    def lines(self) -> list[str]:
        """Render for a console of 100 columns."""
        what = f"mean over {self.pairs:,} pairs of a class, higher = less varied"
        return [f"  MS-SSIM   {self.samples:7.4f}  {what} (real images: {self.real:.4f})"]


def measure_pairs(
    generated: Rows,
    generated_labels: Tensor,
    real: Rows,
    real_labels: Tensor,
    *,
    pairs: int,
    seed: int,
    figures: RealFigures = MEASURED_ANEW,
) -> PairReport:
    """Compare random pairs of different images of one class, generated ones with each other and real ones.

    Args:
        generated: Generated images in [-1, 1], of shape ``(images, channels, height, width)``.
        generated_labels: Their classes, int64 of shape ``(images,)``.
        real: Real images of that size.
        real_labels: Their classes.
        pairs: How many pairs; an image may be in several.
        seed: Seed of their choice.
        figures: Keeps what is found of the real images.

    Raises:
        UserError: If the size does not fit, or no class has two images.
    """
    check_pair_size(real.shape[-1])
    return PairReport(
        pairs=pairs,
        samples=_mean_similarity(generated, generated_labels, pairs, seed, "generated"),
        real=figures("ms-ssim", (pairs, seed), lambda: _mean_similarity(real, real_labels, pairs, seed, "real")),
    )


def check_pair_size(size: int) -> None:
    """Check what can be known before anything is computed.

    Raises:
        UserError: If the size is no multiple of 16.
    """
    if size % 16:
        raise UserError(f"--ms-ssim needs a multiple of 16 pixels, but the images have {size}x{size}.")


def random_pairs(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Numbers of two different images of one class, ``(count, 2)``; every image that has such a partner is as likely.

    Raises:
        UserError: If no class has two images.
    """
    order = labels.argsort(stable=True)
    sizes = torch.bincount(labels)
    start = (sizes.cumsum(0) - sizes)[labels[order]]
    size = sizes[labels[order]]
    candidates = (size > 1).nonzero().squeeze(1)
    if len(candidates) == 0:
        raise UserError("--ms-ssim compares images of one class, but no class has two.")
    place = candidates[torch.randint(len(candidates), (count,), generator=generator)]
    # Any but the image itself: 1 to size - 1 places further on, around the class.
    step = 1 + (torch.rand(count, dtype=torch.float64, generator=generator) * (size[place] - 1)).long()
    partner = start[place] + (place - start[place] + step) % size[place]
    return torch.stack([order[place], order[partner]], dim=1)


def _mean_similarity(images: Rows, labels: Tensor, count: int, seed: int, name: str) -> float:
    pairs = random_pairs(labels, count, random_stream(seed, "similar pairs", name))
    return statistics.fmean(
        similarity
        for part in pairs.split(PAIRS_AT_ONCE)
        for similarity in multiscale_ssim(images[part[:, 0]], images[part[:, 1]]).tolist()
    )


@dataclass(frozen=True)
class PairOptions(Fields):
    """The similarity of pairs of samples."""

    ms_ssim: int = 0
    """Pairs of samples of one class to compare by their multi-scale structural similarity (ProGAN: 10000); 0: none."""

    def __post_init__(self) -> None:
        """Check the value."""
        super().__post_init__()
        require_at_least(self, 0, "ms_ssim")
        require(self, "ms_ssim", self.ms_ssim <= MOST_PAIRS, f"at most {MOST_PAIRS:,}")


def _check(options: PairOptions, plan: Plan) -> None:
    if options.ms_ssim:
        check_pair_size(plan.config.resolution)


def _measure(options: PairOptions, samples: Samples) -> PairReport | None:
    if not options.ms_ssim:
        return None
    return measure_pairs(
        samples.generated,
        samples.labels,
        samples.real,
        samples.real_labels,
        pairs=options.ms_ssim,
        seed=samples.seed,
        figures=samples.figures,
    )


MS_SSIM = Metric(name="ms_ssim", options=PairOptions, check=_check, measure=_measure)
