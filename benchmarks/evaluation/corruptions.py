"""Twelve ways to corrupt real images, each in three grades, whose order a metric should find."""

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from gan_blocks.engine.data.image_set import ImageSet

__all__ = ["GRADES", "Corruption", "corruptions"]

GRADES = 3

Corruption = Callable[[Tensor, Tensor, int, torch.Generator], tuple[Tensor, Tensor]]
"""Of images in [-1, 1] and their labels, for a grade from 1 to 3."""


def of_pixels(change: Callable[[Tensor, int, torch.Generator], Tensor]) -> Corruption:
    """A corruption that leaves the labels as they are."""
    return lambda images, labels, grade, rng: (change(images, grade, rng).clamp(-1, 1), labels)


def blurred(images: Tensor, grade: int, _rng: torch.Generator) -> Tensor:
    """By a Gaussian of 0.5, 1 and 2 pixels."""
    sigma = (0.5, 1.0, 2.0)[grade - 1]
    at = torch.arange(-6, 7).float()
    weights = (-at.square() / (2 * sigma**2)).exp()
    kernel = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
    rows = F.conv2d(F.pad(images, (6, 6, 0, 0), mode="replicate"), kernel, groups=images.shape[1])
    return F.conv2d(F.pad(rows, (0, 0, 6, 6), mode="replicate"), kernel.mT, groups=images.shape[1])


def noisy(images: Tensor, grade: int, rng: torch.Generator) -> Tensor:
    """With normal noise of 5, 10 and 20 % of the range."""
    return images + (0.1, 0.2, 0.4)[grade - 1] * torch.randn(images.shape, generator=rng)


def compressed(images: Tensor, grade: int, _rng: torch.Generator) -> Tensor:
    """By JPEG of quality 60, 30 and 10."""
    found = []
    for pixels in ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy():
        packed = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
            packed, "JPEG", quality=(60, 30, 10)[grade - 1]
        )
        opened = np.asarray(Image.open(packed))
        found.append(torch.from_numpy(opened.reshape(pixels.shape).copy()).permute(2, 0, 1))
    return torch.stack(found).float() / 127.5 - 1


def shifted_in_color(images: Tensor, grade: int, _rng: torch.Generator) -> Tensor:
    """The first channel brighter by 5, 10 and 20 % of the range, the last one darker."""
    shift = torch.linspace(1, -1, images.shape[1]) if images.shape[1] > 1 else torch.ones(1)
    return images + (0.1, 0.2, 0.4)[grade - 1] * shift[:, None, None]


def faded(images: Tensor, grade: int, _rng: torch.Generator) -> Tensor:
    """With 80, 60 and 40 % of the contrast."""
    return (0.8, 0.6, 0.4)[grade - 1] * images


def covered(images: Tensor, grade: int, rng: torch.Generator) -> Tensor:
    """By a gray square of 1/8, 1/4 and 1/2 of the side, anywhere."""
    side = images.shape[2]
    size = side * (1, 2, 4)[grade - 1] // 8
    found = images.clone()
    for image, (top, left) in zip(
        found, torch.randint(side - size + 1, (len(images), 2), generator=rng).tolist(), strict=True
    ):
        image[:, top : top + size, left : left + size] = 0
    return found


def coarse(images: Tensor, grade: int, _rng: torch.Generator) -> Tensor:
    """In blocks of 2, 4 and 8 pixels."""
    size = 2**grade
    return F.interpolate(F.avg_pool2d(images, size), scale_factor=size)


def blended(images: Tensor, grade: int, rng: torch.Generator) -> Tensor:
    """With 10, 25 and 50 % of another image."""
    share = (0.1, 0.25, 0.5)[grade - 1]
    return (1 - share) * images + share * images[torch.randperm(len(images), generator=rng)]


SHARES = 0.1, 0.3, 0.5


def without_classes(images: Tensor, labels: Tensor, grade: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images of 10, 30 and 50 % of the classes replaced by some of the other classes."""
    classes = labels.unique()
    lost = classes[: max(1, round(SHARES[grade - 1] * len(classes)))]
    kept = torch.isin(labels, lost, invert=True).nonzero().flatten()
    numbers = torch.arange(len(labels))
    gone = torch.isin(labels, lost)
    numbers[gone] = kept[torch.randint(len(kept), (int(gone.sum()),), generator=rng)]
    return images[numbers], labels[numbers]


def repeated(images: Tensor, labels: Tensor, grade: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image 2, 5 and 20 times."""
    few = torch.randperm(len(images), generator=rng)[: max(1, len(images) // (2, 5, 20)[grade - 1])]
    numbers = few[torch.arange(len(images)) % len(few)]
    return images[numbers], labels[numbers]


def mislabeled(images: Tensor, labels: Tensor, grade: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """With the label of another image, for 10, 30 and 50 % of them."""
    chosen = torch.randperm(len(labels), generator=rng)[: round(SHARES[grade - 1] * len(labels))]
    found = labels.clone()
    found[chosen] = labels[chosen.roll(1)]
    return images, found


def corruptions(training: ImageSet) -> dict[str, Corruption]:
    """All twelve, by name."""

    def copied(images: Tensor, labels: Tensor, grade: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training images in the place of 10, 30 and 50 %, with a little noise."""
        count = round(SHARES[grade - 1] * len(images))
        taken = torch.randperm(len(training), generator=rng)[:count]
        some, classes = training.batch(taken)
        some = (some + 0.02 * torch.randn(some.shape, generator=rng)).clamp(-1, 1)
        places = torch.randperm(len(images), generator=rng)[: len(taken)]
        found, found_labels = images.clone(), labels.clone()
        found[places], found_labels[places] = some, classes
        return found, found_labels

    return {
        "blur": of_pixels(blurred),
        "noise": of_pixels(noisy),
        "JPEG": of_pixels(compressed),
        "color shift": of_pixels(shifted_in_color),
        "low contrast": of_pixels(faded),
        "covered square": of_pixels(covered),
        "coarse pixels": of_pixels(coarse),
        "blended pairs": of_pixels(blended),
        "classes dropped": without_classes,
        "duplicates": repeated,
        "swapped labels": mislabeled,
        "training copies": copied,
    }
