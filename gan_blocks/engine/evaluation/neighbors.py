"""The training images nearest to given ones, by a measure of one's choice.

Tested in ``tests/engine/commands/test_neighbors.py``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from gan_blocks.engine.base.terminal.console import Progress
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.evaluation.classifier import train_classifier
from gan_blocks.engine.evaluation.image_rows import RealImages, SelectedImages

__all__ = ["MEASURES", "Measure", "Neighbors", "center_crop", "classifier_features", "nearest_images"]

BLOCK_IMAGES = 512
# More images than this train the classifier no better.
MOST_TRAINING_IMAGES = 50_000


class Neighbors(NamedTuple):
    """For every query its nearest training images, the nearest first: int64 numbers and float64 distances.

    Both are of shape ``(queries, neighbors)``; of equally near images the one that comes first in the data is first.
    """

    numbers: Tensor
    distances: Tensor


@dataclass(frozen=True)
class Measure:
    """Distances between images: the p-norm of the difference of what ``look`` makes of them."""

    title: str
    p: float
    look: Callable[[Tensor], Tensor]
    """From images ``(batch, channels, height, width)`` to ``(batch, ...)``."""


def nearest_images(
    queries: Tensor,
    images: ImageSet,
    measure: Measure,
    *,
    count: int,
    query_labels: Tensor | None = None,
) -> Neighbors:
    """Search all training images, block by block, for the nearest of every query.

    Args:
        queries: Images in [-1, 1], ``(queries, channels, height, width)``, of the size of ``images``.
        images: The training images.
        measure: What near means.
        count: Neighbors wanted, at least 1; fewer are returned where there are fewer images.
        query_labels: Only images of the query's class count, ``(queries,)``; None: all do. A place for which a class
            has too few images holds an infinite distance.
    """
    looked, count = _flat(measure, queries), min(count, len(images))
    numbers = torch.empty(len(queries), 0, dtype=torch.int64)
    distances = torch.empty(len(queries), 0, dtype=torch.float64)
    blocks = torch.split(torch.arange(len(images)), BLOCK_IMAGES)
    for block in Progress(blocks, desc=f"nearest by {measure.title}", unit="block", delay=2, leave=False):
        pixels, labels = images.batch(block)
        # The fast form of cdist would put a distance between an image and its copy.
        found = torch.cdist(looked, _flat(measure, pixels), p=measure.p, compute_mode="donot_use_mm_for_euclid_dist")
        if query_labels is not None:
            found[rearrange(query_labels, "query -> query 1") != labels] = torch.inf
        distances = torch.cat([distances, found], dim=1)
        numbers = torch.cat([numbers, block.expand(len(queries), -1)], dim=1)
        # Stable, so that equally near images stay in the order of the data.
        distances, order = torch.sort(distances, dim=1, stable=True)
        distances, numbers = distances[:, :count], numbers.gather(1, order)[:, :count]
    return Neighbors(numbers, distances)


def center_crop(images: Tensor) -> Tensor:
    """The middle of every image, half as high and half as wide (rounded up)."""
    height, width = images.shape[2:]
    top, left = height // 4, width // 4
    return images[:, :, top : top + -(-height // 2), left : left + -(-width // 2)]


def classifier_features(images: ImageSet, *, num_classes: int, seed: int) -> Callable[[Tensor], Tensor]:
    """Train the classifier of ``gan-blocks evaluate`` on the images; what its last layer looks at is the result.

    Of more than 50,000 images so many train it, evenly spaced in their order.

    Raises:
        UserError: If no class has two images.
    """
    numbers = torch.arange(0, len(images), -(-len(images) // MOST_TRAINING_IMAGES))
    some = SelectedImages(RealImages(images), numbers)
    classifier = train_classifier(some, images.labels[numbers], num_classes=num_classes, seed=seed).classifier
    # All but the linear layer that tells the classes apart.
    body = nn.Sequential(*list(classifier.children())[:-1]).eval()

    @torch.no_grad()
    def look(batch: Tensor) -> Tensor:
        features: Tensor = body(batch)
        return features

    return look


def _flat(measure: Measure, images: Tensor) -> Tensor:
    return rearrange(measure.look(images), "image ... -> image (...)").double()


# The measures that need no training, by the name of their option.
MEASURES: Mapping[str, Measure] = {
    "pixels": Measure("L2 in pixels", 2.0, lambda images: images),
    "crop": Measure("L1 in the center crop", 1.0, center_crop),
}
