"""Images that are kept from a training, to see later what it has not.

Tested in ``tests/engine/data/test_held_out.py``.
"""

import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.image_set import ImageSet, class_name

__all__ = ["held_out_numbers", "selected_images", "split_held_out"]


def held_out_numbers(count: int, share: float, *, seed: int) -> Tensor:
    """Which of so many images are held out: those with the lowest digests of (seed, number), in ascending order.

    So most stay what they are when images are added. At least one is held out, and at least one is not.

    Example:
        >>> held_out_numbers(10, 0.2, seed=0).numel()
        2
    """
    digests = [_digest(seed, number) for number in range(count)]
    order = sorted(range(count), key=digests.__getitem__)
    return torch.tensor(sorted(order[: min(max(1, round(share * count)), count - 1)]), dtype=torch.int64)


def _digest(seed: int, number: int) -> bytes:
    return hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8, person=b"held out").digest()


def split_held_out(images: ImageSet, share: float, *, seed: int) -> tuple[ImageSet, ImageSet | None]:
    """The images to train on, and those held out; None where the share is 0.

    Raises:
        UserError: If there is one image, or a class would have none left.
    """
    if share == 0:
        return images, None
    if len(images) < 2:
        raise UserError(f"--hold-out {share:g} needs two or more images, but there are {len(images)}.")
    numbers = held_out_numbers(len(images), share, seed=seed)
    kept = torch.ones(len(images), dtype=torch.bool)
    kept[numbers] = False
    training = selected_images(images, kept.nonzero().flatten())
    before, after = (torch.bincount(each.labels, minlength=images.num_classes) for each in (images, training))
    if lost := ((before > 0) & (after == 0)).nonzero().flatten().tolist():
        name = class_name(images.class_names, lost[0])
        raise UserError(f"--hold-out {share:g} leaves class {name} without an image to train on: make it smaller.")
    return training, selected_images(images, numbers)


def selected_images(images: ImageSet, numbers: Tensor) -> ImageSet:
    """Those that have the numbers, in their order."""

    def read_pixels(indices: Tensor) -> Tensor:
        return images.read_pixels(numbers[indices])

    return replace(images, read_pixels=read_pixels, labels=images.labels[numbers])
