"""The features of a set of images: in a file, since a hundred thousand images have half a gigabyte of them.

Tested in ``tests/engine/evaluation/features/test_kept_features.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gan_blocks import FeatureMoments, Rows
from gan_blocks.engine.base.terminal.console import Progress
from gan_blocks.engine.evaluation.features.network import FeatureNetwork
from gan_blocks.engine.evaluation.image_rows import StoredImages

__all__ = ["FeatureSet", "computed_rows", "feature_set"]

READ_AT_ONCE = 256
SEEN_AT_ONCE = 16, 128  # by a CPU, whose caches larger batches of large images leave, and by a GPU
PIXELS_AT_ONCE = 64 * 64**2  # of a CPU; small images that are seen 16 at a time take up to twice as long
POOLED_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of images, some of them by their ``numbers``, with the classes of these images; they are `Rows`."""

    network: FeatureNetwork
    rows: Rows
    """What the network gave for all images."""
    labels: Tensor
    """Of all images."""
    numbers: Tensor
    """Which of them are meant, in what order."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, places: Tensor, /) -> Tensor:
        return self.among(places).features()

    @property
    def shape(self) -> torch.Size:
        """``(len(self), num_features)``."""
        return torch.Size((len(self), self.network.num_features))

    @property
    def device(self) -> torch.device:
        """Where the features that are read lie."""
        return self.rows.device

    def among(self, places: Tensor) -> "FeatureSet":
        """Those at some places of this set."""
        return FeatureSet(self.network, self.rows, self.labels, self.numbers[places])

    def of_class(self, label: int) -> "FeatureSet":
        """Those of a class."""
        return self.among((self.labels[self.numbers] == label).nonzero().flatten())

    def chosen(self, most: int, generator: torch.Generator) -> "FeatureSet":
        """At most so many of them, drawn at random without repetition."""
        return self.among(torch.randperm(len(self), generator=generator)[:most])

    def features(self) -> Tensor:
        """All of these features in memory, ``(len(self), num_features)``."""
        return torch.cat(list(self.batches()))

    def batches(self) -> Iterator[Tensor]:
        """The same, some thousand at a time."""
        for numbers in self.numbers.split(POOLED_AT_ONCE):
            yield self.network.features(self.rows[numbers]).contiguous()

    def moments(self) -> FeatureMoments:
        """Their mean and covariance, pooled once."""
        return self._moments

    @cached_property
    def _moments(self) -> FeatureMoments:
        moments = FeatureMoments(self.network.num_features)
        for batch in self.batches():
            moments.update(batch)
        return moments

    def logits(self) -> Tensor | None:
        """Their logits, in memory; None where the network has none."""
        parts = [self.network.logits(self.rows[numbers]) for numbers in self.numbers.split(POOLED_AT_ONCE)]
        return None if any(part is None for part in parts) else torch.cat([part for part in parts if part is not None])


def feature_set(network: FeatureNetwork, images: Rows, labels: Tensor, rows: Rows | None = None) -> FeatureSet:
    """Look at all images, or take what a network gave for them before.

    Raises:
        UserError: If a feature is not finite, or the temporary folder has no room.
    """
    if rows is None:
        batches = computed_rows(network, images)
        first = next(batches)
        rows = StoredImages((len(images), first[1].shape[1]), _behind(first, batches))
    return FeatureSet(network, rows, labels, torch.arange(len(images)))


def computed_rows(network: FeatureNetwork, images: Rows) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers of images and what the network gives for them, in their order, some at a time."""
    fewest, size = SEEN_AT_ONCE
    if network.device.type == "cpu":
        size = max(fewest, min(size, PIXELS_AT_ONCE // (network.side or images.shape[-1]) ** 2))
    blocks = torch.arange(len(images)).split(READ_AT_ONCE)
    for numbers in Progress(blocks, desc=f"features {network.name}", unit="block", delay=2, leave=False):
        yield numbers, torch.cat([network.rows(part) for part in images[numbers].split(size)])


def _behind(first: tuple[Tensor, Tensor], others: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    yield first
    yield from others
