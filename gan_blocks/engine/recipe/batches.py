"""The batches of a step, as a function of (seed, step, purpose) alone, split into micro-batches and over processes.

Every process draws the whole batch, cuts it into the micro-batches and takes its part of each. So a micro-batch over
all processes holds the same samples however many they are, and so does what batch normalization sees.

Tested in ``tests/engine/recipe/test_batches.py``.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from gan_blocks import Prior, TopKSchedule
from gan_blocks.engine.base.devices import torch_device
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.memory import check_fits
from gan_blocks.engine.base.parallel.processes import World, current_world, main_rank_only
from gan_blocks.engine.base.randomness import random_stream, sample_indices
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.recipe.config import TrainingConfig
from gan_blocks.engine.recipe.options import RunOptions

__all__ = [
    "BatchSource",
    "FakeBatch",
    "PairBatch",
    "StepBatches",
    "check_parts",
    "check_split",
    "sample_inputs",
    "top_k_schedule",
]


Augment = Callable[[Tensor], Tensor]
"""A differentiable function of images. Its random numbers come from torch's global generators, which are seeded."""


@dataclass(frozen=True)
class FakeBatch:
    """Latents and labels to generate from."""

    z: Tensor
    labels: Tensor
    share: float
    """This micro-batch's part of the whole batch, in (0, 1]."""
    noise_key: tuple[int | str, ...]
    """What the noise inside the networks, such as dropout, is a function of besides the seed."""
    k: int | None = None
    """How many of these samples G learns from, the best of them; None: all, or those of ``chosen``."""
    chosen: Tensor | None = None
    """The samples that G learns from, bool, ``(batch,)``; ``share`` is then their part of all chosen ones, or 0."""
    augment: Augment | None = None
    """What D sees of an image instead of it, real or generated; see :meth:`seen`."""

    def seen(self, images: Tensor) -> Tensor:
        """Images as D is to see them: augmented, where the update was told to."""
        return images if self.augment is None else self.augment(images)


@dataclass(frozen=True)
class PairBatch:
    """Real images beside what to generate, the same number of each.

    With ``same_labels=True`` the i-th generated image has the label of the i-th real one: they are pairs.
    """

    real_images: Tensor
    real_labels: Tensor
    fake: FakeBatch
    update: int
    """Updates of D in the whole run before this one."""

    @property
    def noise_key(self) -> tuple[int | str, ...]:
        """What the noise inside the networks is a function of besides the seed."""
        return self.fake.noise_key

    @property
    def share(self) -> float:
        """This micro-batch's part of the whole batch, in (0, 1]."""
        return self.fake.share


def sample_inputs(prior: Prior, config: TrainingConfig, count: int, *key: int | str) -> tuple[Tensor, Tensor]:
    """Latents from the prior and labels uniform over the classes, a function of the Config's seed and ``key``."""
    z = prior.sample(count, generator=random_stream(config.seed, "latents", *key))
    labels = torch.randint(config.num_classes, (count,), generator=random_stream(config.seed, "labels", *key))
    return z, labels


class StepBatches:
    """The batches of one training step. Each whole batch is drawn first and then split, however many the parts."""

    def __init__(self, source: "BatchSource", step: int, real: list[tuple[Tensor, Tensor]]) -> None:
        self._source = source
        self._real = real
        self._purpose_of_g: tuple[int | str, ...] = ("generator",)
        self.step = step

    @property
    def k(self) -> int:
        """How many samples of the whole batch G learns from in this step: a share of it, however large it is."""
        config = self._source.config
        schedule = top_k_schedule(config, len(self._source.images), batch_size=config.batch_size_at(self.step))
        return schedule.k(images=config.images_before(self.step))

    def with_shared_latents(self) -> "StepBatches":
        """The same batches, but that G is updated on what D's first update generates: one batch for both."""
        shared = copy(self)
        shared._purpose_of_g = ("discriminator", 0)
        return shared

    def discriminator(self, number: int) -> Iterator[PairBatch]:
        """Micro-batches of the step's ``number``-th update of D, counted from 0."""
        images, labels = self._real[number]
        update = (self.step - 1) * self._source.config.discriminator_steps + number
        return self._pairs(images, labels, self._fake("discriminator", number), update)

    def _pairs(self, images: Tensor, labels: Tensor, fakes: Iterator[FakeBatch], update: int) -> Iterator[PairBatch]:
        parts = self._source.options.accumulate
        real = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
        for (real_images, real_labels), fake in zip(real, fakes, strict=True):
            yield PairBatch(self._source.to_images(real_images), real_labels.to(fake.labels.device), fake, update)

    def generator(self) -> Iterator[FakeBatch]:
        """Micro-batches of the step's update of G."""
        return self._fake(*self._purpose_of_g)

    def generator_pairs(self) -> Iterator[PairBatch]:
        """The same beside real images of the same labels, drawn for this alone."""
        images, labels = self._source.read_for_generator(self.step)
        update = self.step * self._source.config.discriminator_steps
        for pair in self._pairs(images, labels, self.generator(), update):
            yield replace(pair, fake=replace(pair.fake, labels=pair.real_labels))

    def _fake(self, *purpose: int | str) -> Iterator[FakeBatch]:
        options, config = self._source.options, self._source.config
        prior = self._source.prior.at(self.step)
        world = self._source.world
        batch_size = config.batch_size_at(self.step)
        whole = sample_inputs(prior, config, batch_size, self.step, *purpose)
        z, labels = (_own_part(drawn, options.accumulate, world) for drawn in whole)
        parts = zip(z.tensor_split(options.accumulate), labels.tensor_split(options.accumulate), strict=True)
        for number, (z_part, labels_part) in enumerate(parts):
            share = len(z_part) / batch_size
            yield FakeBatch(
                z_part.to(self._source.device, options.dtype()),
                labels_part.to(self._source.device),
                share,
                noise_key=(self.step, *purpose, number * world.size + world.rank),
            )


def top_k_schedule(config: TrainingConfig, num_images: int, *, batch_size: int) -> TopKSchedule:
    """How k of a batch falls: once every epoch of the real images, or as often as the Config says."""
    floor = config.top_k_floor
    return TopKSchedule(
        batch_size=batch_size,
        gamma=config.top_k_gamma,
        floor=min(int(floor), batch_size) if floor > 1 else None,
        floor_share=None if floor > 1 else floor,
        decay_images=config.top_k_decay_images or num_images,
    )


class BatchSource:
    """Gives the batches of any step; reads the next step's real images while the present one trains."""

    def __init__(self, images: ImageSet, prior: Prior, config: TrainingConfig, options: RunOptions) -> None:
        self.images, self.prior, self.config, self.options = images, prior, config, options
        self.world = current_world()
        self.device = torch_device(options.device)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._ahead: tuple[int, Future[list[tuple[Tensor, Tensor]]]] | None = None
        self.seconds_waited = 0.0
        """How long training has waited for images."""

    def step(self, step: int) -> StepBatches:
        """The batches of ``step``, counted from 1."""
        ready = self._ahead[1] if self._ahead and self._ahead[0] == step else self._reader.submit(self._read, step)
        began = time.monotonic()
        real = ready.result()
        self.seconds_waited += time.monotonic() - began
        self._ahead = (step + 1, self._reader.submit(self._read, step + 1))
        return StepBatches(self, step, real)

    def read_for_generator(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's part of the real images that G's update compares its own with."""
        config, batch_size = self.config, self.config.batch_size_at(step)
        start = config.images_before(step) // config.discriminator_steps
        batch = sample_indices(config.seed, len(self.images), start, batch_size, purpose="generator")
        return self.images.batch(_own_part(batch, self.options.accumulate, self.world))

    def to_images(self, images: Tensor) -> Tensor:
        """Bring real images to the device, precision and memory format of the networks."""
        memory_format = torch.channels_last if self.options.channels_last else torch.contiguous_format
        return images.to(self.device, self.options.dtype()).contiguous(memory_format=memory_format)

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.shutdown(cancel_futures=True)

    def _read(self, step: int) -> list[tuple[Tensor, Tensor]]:
        config, batch_size = self.config, self.config.batch_size_at(step)
        starts = [config.images_before(step) + number * batch_size for number in range(config.discriminator_steps)]
        batches = [sample_indices(config.seed, len(self.images), start, batch_size) for start in starts]
        return [self.images.batch(_own_part(batch, self.options.accumulate, self.world)) for batch in batches]


def check_split(config: TrainingConfig, options: RunOptions, world: World) -> None:
    """Check that the processes and micro-batches can share each batch of the run.

    Raises:
        UserError: If there are more micro-batches than images, if processes cannot share a batch evenly (the nearest
            size that they can is named), or if there is no room for the images alone.
    """
    parts = world.size * options.accumulate
    sizes = config.all_batch_sizes()
    smallest = min(sizes)
    if options.accumulate > smallest:
        rule = f"at most {smallest}, the images of the smallest batch"
        raise main_rank_only(UserError(f"--accumulate must be {rule}, but got {options.accumulate}."))
    option = "--batch-size must be" if sizes == (config.batch_size,) else "--batch-sizes must each be"
    # In float32: the real ones of each update of D, which are read ahead; generated ones, and their gradient.
    copies = config.discriminator_steps + 2
    pixels = config.image_channels * config.resolution**2
    needed = 4 * copies * pixels * max(sizes) // parts
    check_fits(f"the images of {option.partition(' must')[0]} {max(sizes):,}", needed)
    for size in sizes:
        if world.size > 1 and size % parts:
            nearest = max(1, round(size / parts)) * parts
            of_each = f" of {options.accumulate} micro-batches each" if options.accumulate > 1 else ""
            rule = f"a multiple of {parts} for {world.size} processes{of_each}"
            raise main_rank_only(UserError(f"{option} {rule}, but got {size}; the nearest is {nearest}."))


def check_parts(config: TrainingConfig, options: RunOptions, world: World) -> None:
    """Check that the networks can take every micro-batch of a run whose batches can be shared.

    Raises:
        UserError: If they cannot.
    """
    for size in config.all_batch_sizes():
        own = size // world.size
        for part in sorted({own // options.accumulate, -(-own // options.accumulate)}):
            if (broken := config.check_part(part)) is not None:
                by = f"--accumulate {options.accumulate}" + (f" and {world.size} processes" if world.size > 1 else "")
                problem = f"{by} would make micro-batches of {part} of a batch of {size}; {broken}."
                raise main_rank_only(UserError(problem))


def _own_part(whole: Tensor, micro_batches: int, world: World) -> Tensor:
    """This process's samples of each micro-batch, one micro-batch after the other."""
    if world.size == 1:
        return whole
    pattern = "(part rank sample) ... -> rank (part sample) ..."
    return rearrange(whole, pattern, part=micro_batches, rank=world.size)[world.rank]
