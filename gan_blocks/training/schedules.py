"""Schedules: settings as pure functions of how far training has come.

Tested in ``tests/training/test_schedules.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar

from gan_blocks._checks import bad_value, check_positive, check_whole

__all__ = ["GrowthPosition", "GrowthSchedule"]

ValueT = TypeVar("ValueT", int, float)


class GrowthPosition(NamedTuple):
    """Where the growth of a progressive network stands."""

    phase: int
    """Number of the phase, from 0. Phases with an even number train one resolution, those with an odd number fade
    the next one in. Published code starts the optimizers anew whenever it changes."""
    resolution: int
    """Height and width of the images in pixels."""
    alpha: float
    """Weight of the newest layers, from 0 to 1; 1 while nothing fades in."""
    batch_size: int
    """Images in a batch."""
    learning_rate: float
    """The learning rate of both networks."""


@dataclass(frozen=True)
class GrowthSchedule:
    r"""ProGAN's schedule: the resolution doubles again and again, each time faded in and then trained to stability.

    The first resolution is trained for ``stabilize_images``; then phases alternate, in which the next one fades in
    during ``fade_images`` and is trained for ``stabilize_images``. The last one has no end. With n of F images of a
    fade seen,

    .. math:: \alpha = n / F

    All is counted in real images shown to the discriminator, so that it does not depend on the batch size, and is a
    function of only that count. A schedule holds numbers and tuples only: ``dataclasses.asdict`` gives JSON.

    Args:
        final_resolution: Height and width at the end: 4 doubled any number of times.
        initial_resolution: Height and width at the start, likewise; equal to the final one there is no growth.
        stabilize_images: Images of each phase without a fade, greater than 0.
        fade_images: Images of each fade, greater than 0.
        batch_sizes: Pairs of a resolution and the batch size from that resolution on, in growing order, the first one
            not above ``initial_resolution``.
        learning_rates: The same for the learning rate.

    Raises:
        ValueError: If a resolution is not 4 doubled a whole number of times, the initial one is above the final one,
            another number is not greater than 0, or pairs leave the initial resolution out or do not grow.

    References:
        Karras et al. 2018, "Progressive Growing of GANs", section 2 and Appendix A.

    Example:
        >>> schedule = GrowthSchedule.published(1024)
        >>> schedule.at(600_000 + 150_000)
        GrowthPosition(phase=1, resolution=8, alpha=0.25, batch_size=16, learning_rate=0.001)
        >>> schedule.at(schedule.growth_images).resolution
        1024
    """

    final_resolution: int
    initial_resolution: int = 4
    stabilize_images: int = 800_000
    fade_images: int = 800_000
    batch_sizes: tuple[tuple[int, int], ...] = ((4, 16), (256, 14), (512, 6), (1024, 3))
    learning_rates: tuple[tuple[int, float], ...] = ((4, 0.001),)

    def __post_init__(self) -> None:
        owner = "GrowthSchedule"
        for name in ("final_resolution", "initial_resolution"):
            value = getattr(self, name)
            check_whole(owner, **{name: value})
            if not _is_doubled_four(value):
                raise bad_value(owner, name, "4 doubled a whole number of times", value)
        if self.initial_resolution > self.final_resolution:
            rule = f"at most final_resolution={self.final_resolution}"
            raise bad_value(owner, "initial_resolution", rule, self.initial_resolution)
        check_positive(owner, stabilize_images=self.stabilize_images, fade_images=self.fade_images)
        for name in ("batch_sizes", "learning_rates"):
            pairs = getattr(self, name)
            starts = [start for start, _ in pairs]
            if not starts or starts[0] > self.initial_resolution or starts != sorted(set(starts)):
                rule = f"pairs (resolution, value) in growing order from initial_resolution={self.initial_resolution}"
                raise bad_value(owner, name, rule, pairs)
            if not all(value > 0 for _, value in pairs):
                raise bad_value(owner, name, "pairs with values greater than 0", pairs)

    @classmethod
    def published(cls, final_resolution: int) -> Self:
        """Give the schedule of the paper's text: phases of 600,000 images for 1024x1024, of 800,000 for less.

        The code that made its numbers has 800,000 for 1024x1024 too, and 400,000 for CIFAR-10.

        Args:
            final_resolution: 4 doubled any number of times.
        """
        images = 600_000 if final_resolution >= 1024 else 800_000
        return cls(final_resolution, stabilize_images=images, fade_images=images)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """All resolutions in their order."""
        doublings = (self.final_resolution // self.initial_resolution).bit_length()
        return tuple(self.initial_resolution * 2**number for number in range(doublings))

    @property
    def growth_images(self) -> int:
        """Images seen when the final resolution is fully faded in."""
        return (len(self.resolutions) - 1) * (self.stabilize_images + self.fade_images)

    def at(self, images_seen: int) -> GrowthPosition:
        """Find the position after a number of images.

        Args:
            images_seen: Real images shown to the discriminator so far, at least 0.

        Raises:
            ValueError: If ``images_seen`` is negative.
        """
        if images_seen < 0:
            raise bad_value("GrowthSchedule", "images_seen", "at least 0", images_seen)
        *growing, last = self._phases()
        for phase, (resolution, start, length) in enumerate(growing):
            if images_seen < start + length:
                alpha = (images_seen - start) / length if phase % 2 else 1.0
                return self._position(phase, resolution, alpha)
        return self._position(len(growing), last[0], 1.0)

    def images_before(self, step: int, *, batches_per_step: int = 1) -> int:
        """Count the images seen before a training step, from only the steps.

        A step takes its resolution and batch size from the images seen before it, so a phase may end up to a step
        late, and the next one starts from there.

        Args:
            step: Number of the step, from 1.
            batches_per_step: Batches of real images in a step: the discriminator's updates for one of the generator.

        Raises:
            ValueError: If ``step`` or ``batches_per_step`` is less than 1.

        Example:
            >>> schedule = GrowthSchedule(8, stabilize_images=30, fade_images=20, batch_sizes=((4, 8),))
            >>> [schedule.images_before(step) for step in (1, 2, 5)]
            [0, 8, 32]
        """
        for name, value in (("step", step), ("batches_per_step", batches_per_step)):
            if value < 1:
                raise bad_value("GrowthSchedule", name, "at least 1", value)
        seen, steps_left = 0, step - 1
        *growing, last = self._phases()
        for resolution, start, length in growing:
            images_per_step = batches_per_step * _from(self.batch_sizes, resolution)
            steps = max(0, -(-(start + length - seen) // images_per_step))
            if steps_left <= steps:
                return seen + steps_left * images_per_step
            seen, steps_left = seen + steps * images_per_step, steps_left - steps
        return seen + steps_left * batches_per_step * _from(self.batch_sizes, last[0])

    def _phases(self) -> Iterator[tuple[int, int, int]]:
        """Resolution, first image and number of images of every phase; the last one continues after its length."""
        yield self.initial_resolution, 0, self.stabilize_images
        start = self.stabilize_images
        for resolution in self.resolutions[1:]:
            yield resolution, start, self.fade_images
            yield resolution, start + self.fade_images, self.stabilize_images
            start += self.fade_images + self.stabilize_images

    def _position(self, phase: int, resolution: int, alpha: float) -> GrowthPosition:
        batch_size, learning_rate = _from(self.batch_sizes, resolution), _from(self.learning_rates, resolution)
        return GrowthPosition(phase, resolution, alpha, batch_size, learning_rate)


def _is_doubled_four(resolution: int) -> bool:
    return resolution >= 4 and resolution.bit_count() == 1


def _from(pairs: tuple[tuple[int, ValueT], ...], resolution: int) -> ValueT:
    """The value of the last pair that has begun at the resolution."""
    return [value for start, value in pairs if start <= resolution][-1]
