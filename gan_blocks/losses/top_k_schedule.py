"""How k falls from the whole batch to its floor while the generator trains.

Tested in ``tests/losses/test_top_k_schedule.py``.
"""

import math
from dataclasses import dataclass

from gan_blocks._checks import bad_value, check_exactly_one, check_sizes

__all__ = ["TopKSchedule"]


@dataclass(frozen=True, kw_only=True)
class TopKSchedule:
    r"""Anneal the k of top-k training: from the whole batch by a constant factor down to a floor.

    .. math:: k \leftarrow \max(\gamma k, \nu)

    after each decay period, which is an epoch in the paper's experiments on images and 2,000 steps in those on
    mixtures of Gaussians. k is kept real and rounded down when it is used: rounded at each decay, it would stall (50
    of 64 is as far as 0.99 gets then). It is a pure function of how far training has come, so there is no state to
    save; the schedule itself is plain numbers, ``dataclasses.asdict`` of which are JSON values.

    Args:
        batch_size: The whole batch B over all processes and micro-batches, at least 1; k starts there.
        gamma: The factor, greater than 0, at most 1 (k stays B). The paper: 0.99, on ImageNet 0.98.
        floor: The least k, :math:`\nu`, as a number of samples from 1 to ``batch_size``. This or ``floor_share``.
        floor_share: :math:`\nu` as a share of the batch, greater than 0, at most 1. The paper: 0.5 for images, 0.75
            for mixtures of Gaussians.
        decay_steps: Updates of the generator after each of which k decays, at least 1. This or ``decay_images``.
        decay_images: Images seen after each of which k decays, at least 1; the size of the data set decays by epochs.

    Raises:
        ValueError: If not exactly one of ``floor`` and ``floor_share``, and one of ``decay_steps`` and
            ``decay_images``, is given, or a number is outside its range.

    References:
        Sinha et al. 2020, "Top-k Training of GANs", sections 3.2 and 4.1.

    Example:
        >>> schedule = TopKSchedule(batch_size=256, gamma=0.99, floor_share=0.75, decay_steps=2000)
        >>> [schedule.k(steps=steps) for steps in (0, 1999, 2000, 10_000, 100_000)]
        [256, 256, 253, 243, 192]
        >>> from dataclasses import asdict
        >>> TopKSchedule(**asdict(schedule)) == schedule
        True
    """

    batch_size: int
    gamma: float = 0.99
    floor: int | None = None
    floor_share: float | None = None
    decay_steps: int | None = None
    decay_images: int | None = None

    def __post_init__(self) -> None:
        """Reject what cannot work."""
        owner = "TopKSchedule"
        check_sizes(owner, batch_size=self.batch_size)
        if not 0 < self.gamma <= 1:
            raise bad_value(owner, "gamma", "greater than 0 and at most 1", self.gamma)
        check_exactly_one(owner, floor=self.floor, floor_share=self.floor_share)
        if self.floor is not None and not 1 <= self.floor <= self.batch_size:
            raise bad_value(owner, "floor", f"from 1 to batch_size={self.batch_size}", self.floor)
        if self.floor_share is not None and not 0 < self.floor_share <= 1:
            raise bad_value(owner, "floor_share", "greater than 0 and at most 1", self.floor_share)
        check_exactly_one(owner, decay_steps=self.decay_steps, decay_images=self.decay_images)
        for name in ("decay_steps", "decay_images"):
            period = getattr(self, name)
            if period is not None and period < 1:
                raise bad_value(owner, name, "at least 1", period)

    def k(self, *, steps: int | None = None, images: int | None = None) -> int:
        """How many samples the next update of the generator learns from.

        Args:
            steps: Updates of the generator done so far, for a schedule with ``decay_steps``.
            images: Images seen so far, for one with ``decay_images``.

        Returns:
            k, from 1 to ``batch_size``.

        Raises:
            ValueError: If the other clock is given than the one that the schedule decays by, or a negative number.
        """
        if self.decay_steps is not None:
            name, period, seen, other = "steps", self.decay_steps, steps, images
        else:
            name, period, seen, other = "images", self.decay_images or 1, images, steps
        if seen is None or other is not None:
            raise ValueError(f"TopKSchedule.k: only `{name}` may be given, because k decays every {period} {name}.")
        if not seen >= 0:
            raise bad_value("TopKSchedule.k", name, "at least 0", seen)
        if seen == math.inf:
            raise bad_value("TopKSchedule.k", name, "finite", seen)
        decayed = self.batch_size * self.gamma ** (seen // period)
        least = self.floor or (self.floor_share or 0) * self.batch_size
        # The product of 0.57 and 100 is a last bit below 57.
        return max(1, math.floor(max(decayed, least) * (1 + 1e-12)))
