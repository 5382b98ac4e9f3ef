"""The fields of a Config whose networks grow, and where the growth stands at a step (Karras et al. 2018, Appendix A).

Tested in ``tests/recipes/test_progan.py``.
"""

import bisect
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, Self

from gan_blocks import GrowthPosition, GrowthSchedule, gaussian_ramp
from gan_blocks.engine import AdamFields, TrainingConfig, require, require_at_least, require_positive
from recipes.families.resolution import require_doublings

__all__ = ["GrowingFields", "GrowthFields", "alone_in_batch"]


@dataclass(frozen=True)
class GrowthFields(AdamFields, TrainingConfig):
    """What follows the number of real images that D has seen: the size of the networks, and Adam's rates."""

    help_group: ClassVar[str] = "growth"
    widths_field: ClassVar[str] = "widths"
    """The field with a number of channels for each size."""

    initial_resolution: int = 4
    """Pixels a side at first; 0 or all of them: no growth."""
    stabilize_images: int = 5000
    """Real images shown before the next size fades in."""
    fade_images: int = 5000
    """Real images shown while a size fades in."""
    rampup_images: int = 0
    """Images at the start over which the rates rise."""

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        super().__post_init__()
        require_positive(self, "stabilize_images", "fade_images", self.widths_field)
        require_at_least(self, 0, "rampup_images")
        require_doublings(self, self.widths_field)
        starts = [2**power for power in range(2, self.resolution.bit_length())]
        require(self, "initial_resolution", self.first_resolution in starts, f"0 or one of {starts}")

    @property
    def first_resolution(self) -> int:
        """Pixels a side at first."""
        return self.initial_resolution or self.resolution

    @property
    def batch_at_levels(self) -> tuple[int, ...]:
        """Images in a batch at 4x4, 8x8 and so on up to the resolution."""
        return (self.batch_size,) * (self.resolution.bit_length() - 2)

    @property
    def schedule(self) -> GrowthSchedule:
        """How the networks grow."""
        return GrowthSchedule(
            self.resolution,
            initial_resolution=self.first_resolution,
            stabilize_images=self.stabilize_images,
            fade_images=self.fade_images,
            batch_sizes=tuple((4 * 2**level, size) for level, size in enumerate(self.batch_at_levels)),
        )

    def at(self, images: int) -> Self:
        """The learning rates after so many real images: they rise once, whatever the phases of growth do."""
        if images >= self.rampup_images:
            return self
        ramp = partial(gaussian_ramp, images, self.rampup_images)
        return replace(self, generator_lr=ramp(end=self.generator_lr), discriminator_lr=ramp(end=self.discriminator_lr))

    def batch_size_at(self, step: int) -> int:
        """Images in a batch at a step, counted from 1."""
        return self.position(step).batch_size

    def all_batch_sizes(self) -> tuple[int, ...]:
        """The sizes of the batches at the resolutions from the initial one on."""
        used = (size for resolution, size in self.schedule.batch_sizes if resolution >= self.first_resolution)
        return tuple(dict.fromkeys(used))

    def images_before(self, step: int) -> int:
        """Real images that D has seen before a step, counted from 1."""
        return self.schedule.images_before(step, batches_per_step=self.discriminator_steps)

    def position(self, step: int) -> GrowthPosition:
        """Where the growth stands at a step, counted from 1."""
        return self.schedule.at(self.images_before(step))

    def lasting(self, images: int) -> Self:
        """The same Config, planned until D has seen so many real images."""
        steps = bisect.bisect_left(range(images), images, key=lambda steps: self.images_before(steps + 1))
        return replace(self, planned_steps=steps)


def alone_in_batch(size: int) -> str | None:
    """What to say of a sample whose batch is to be compared as a whole."""
    return None if size > 1 else "each needs 2 or more for D's statistics across samples"


@dataclass(frozen=True)
class GrowingFields(GrowthFields):
    """Networks of Table 2's kind and their growth, with what the rows of Table 1 leave out."""

    help_group: ClassVar[str] = "networks"

    num_classes: int = 1
    """1: ProGAN takes the classes of the data as one."""
    widths: tuple[int, ...] = (64, 64, 32, 16)
    """Channels of both networks at 4x4, 8x8 and so on."""
    latent: Literal["spherical", "normal"] = "spherical"
    """What z is drawn from: the hypersphere, or N(0, I)."""
    latent_dim: int = 64
    """Dimension of z."""

    batch_sizes: tuple[int, ...] = ()
    """Batch at 4x4, 8x8, ...; none: --batch-size for all."""

    generator_norm: Literal["pixel", "batch", "none"] = "pixel"
    """Norm in G: pixel (after the activation), batch (before it), or none."""
    discriminator_norm: Literal["none", "layer"] = "none"
    """Norm in D before the activations that follow a 3x3 or 4x4 convolution."""
    batch_statistics: Literal["stddev", "discrimination", "none"] = "stddev"
    """What D sees of the other samples (discrimination: that of Salimans)."""
    stddev_group_size: int = 4
    """Samples taken together; 0: all, as in the paper."""
    equalized: bool = True
    """Equalized learning rate; else He's initialization."""
    generator_output: Literal["leaky-linear", "relu-tanh"] = "leaky-linear"
    """G's activations: leaky ReLU and linear images, or ReLU and tanh."""

    def __post_init__(self) -> None:
        """Reject what cannot work.

        Raises:
            UserError: If a value is outside its range, or two of them do not go together.
        """
        super().__post_init__()
        require(self, "num_classes", self.num_classes == 1, "1 (ProGAN has no classes)")
        require_positive(self, "latent_dim")
        require_at_least(self, 0, "stddev_group_size")
        fits = not self.batch_sizes or (len(self.batch_sizes) == len(self.widths) and min(self.batch_sizes) > 0)
        require(self, "batch_sizes", fits, f"{len(self.widths)} numbers greater than 0, as many as --widths, or none")
        for size in self.batch_sizes or (self.batch_size,):
            whole = self.stddev_group_size == 0
            rule = f"without a batch of {size}, which has no divisor up to --stddev-group-size"
            rule = "at least 2 for D's statistics across samples" if whole else rule
            require(self, "batch_sizes" if self.batch_sizes else "batch_size", self.check_part(size) is None, rule)

    def check_part(self, size: int) -> str | None:
        """Samples that are judged together must make groups for their statistics."""
        if self.batch_statistics != "stddev" or self.stddev_group_size == 1:
            return None
        if self.stddev_group_size == 0:
            return alone_in_batch(size)
        if any(size % members == 0 for members in range(2, self.stddev_group_size + 1)):
            return None
        return "each needs a divisor from 2 to --stddev-group-size for D's statistics across samples"

    @property
    def batch_at_levels(self) -> tuple[int, ...]:
        """Images in a batch at 4x4, 8x8 and so on."""
        return self.batch_sizes or super().batch_at_levels

    def _largest_batch(self) -> int:
        return max((self.batch_size, *self.batch_sizes))
