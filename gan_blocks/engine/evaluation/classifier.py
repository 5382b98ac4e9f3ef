"""A small image classifier, trained on the spot on real images, as the judge of what a generator drew.

Tested in ``tests/engine/evaluation/test_quality.py``.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gan_blocks import Rows
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.eval_mode import eval_mode
from gan_blocks.engine.base.terminal.console import Progress

__all__ = [
    "ClassSplit",
    "TrainedClassifier",
    "class_features",
    "class_scores",
    "restored_classifier",
    "split_by_class",
    "train_classifier",
]

WIDTHS = (24, 48, 96)
IMAGE_SIZE = 32
BATCH_SIZE = 64
LEARNING_RATE = 3e-3


class ClassSplit(NamedTuple):
    """Indices of the images to train on and of those to keep back, both in ascending order."""

    training: Tensor
    held_out: Tensor


class TrainedClassifier(NamedTuple):
    """A classifier in eval mode, images to logits, and its accuracy on images that it has not seen."""

    classifier: nn.Module
    held_out_accuracy: float


def split_by_class(labels: Tensor, *, seed: int, held_out_fraction: float = 0.2) -> ClassSplit:
    """Keep back the same fraction of every class; a function of the labels and the seed alone.

    Of each class at least one image is kept back and at least one is not; a class of a single image is not split.

    Args:
        labels: Class of every image, int64 of shape ``(images,)``.
        seed: Chooses which images are kept back.
        held_out_fraction: Share of each class to keep back, between 0 and 1.

    Raises:
        UserError: If no class has two images.

    Example:
        >>> split_by_class(torch.tensor([0, 0, 1, 1, 1]), seed=0).held_out.numel()
        2
    """
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(labels.numel(), dtype=torch.bool)
    for label in sorted(set(labels.tolist())):
        members = torch.nonzero(labels.cpu() == label).flatten()
        count = min(max(1, round(held_out_fraction * len(members))), len(members) - 1)
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    if not held_out.any():
        raise UserError("The real images hold no class with two images: a classifier cannot be trained and tested.")
    return ClassSplit(torch.nonzero(~held_out).flatten(), torch.nonzero(held_out).flatten())


def train_classifier(
    images: Rows,
    labels: Tensor,
    *,
    num_classes: int,
    seed: int,
    epochs: int = 10,
    max_steps: int = 2500,
    held_out_fraction: float = 0.2,
) -> TrainedClassifier:
    """Train a three-layer convolutional classifier and test it on images kept back from it.

    Images are averaged (or repeated) to 32x32, shifted at random by up to a sixteenth of their size, and classified by
    three convolutions and a linear layer: 0.98 to 0.99 on 5,000 handwritten digits, in seconds on two cores. The
    result is a function of images, labels, seed and number of threads; no global random state is read or changed.

    Args:
        images: Real images in [-1, 1], of shape ``(images, channels, height, width)``; they are read in batches.
        labels: Their classes, int64 of shape ``(images,)``, from 0 to ``num_classes - 1``.
        num_classes: Number of classes.
        seed: Seed of split, initial weights, batches and shifts.
        epochs: Passes over the training part.
        max_steps: Bound on the optimizer steps of 64 images, so that a large set is sampled and not exhausted.
        held_out_fraction: Share of each class that only tests the classifier; see `split_by_class`.

    Raises:
        UserError: If no class has two images.
    """
    split = split_by_class(labels, seed=seed, held_out_fraction=held_out_fraction)
    classifier = _network(images.shape[1], num_classes, seed=seed).to(images.device)
    generator = torch.Generator().manual_seed(seed)
    batches = _batches(split.training, epochs, max_steps, generator)
    _fit(classifier, images, labels, batches, generator)
    classifier.eval().requires_grad_(False)
    predicted = class_scores(classifier, images, split.held_out).argmax(dim=1)
    return TrainedClassifier(classifier, (predicted == labels[split.held_out]).double().mean().item())


def class_scores(classifier: nn.Module, images: Rows, indices: Tensor | None = None) -> Tensor:
    """Logits of the images (or of those at ``indices``), computed in batches, in eval mode and without gradients."""
    if indices is None:
        indices = torch.arange(len(images))
    with torch.no_grad(), eval_mode(classifier):
        return torch.cat([classifier(images[batch]) for batch in torch.split(indices, 256)])


def restored_classifier(
    weights: Mapping[str, Tensor], channels: int, num_classes: int, accuracy: float, device: torch.device
) -> TrainedClassifier:
    """The classifier that `train_classifier` once made, from its state dict.

    Raises:
        RuntimeError: If the weights are those of another network.
    """
    classifier = _network(channels, num_classes, seed=0)
    classifier.load_state_dict(dict(weights))
    return TrainedClassifier(classifier.to(device).eval().requires_grad_(False), accuracy)


def class_features(trained: TrainedClassifier, images: Rows) -> Tensor:
    """The 96 features of the classifier's last map, averaged over its pixels: ``(images, 96)``.

    The average leaves fewer features than a set of some hundred images has samples, as a covariance needs.
    """
    layers = list(trained.classifier.children())[:-2]
    maps = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()  # or its end would be in train mode
    return class_scores(maps, images)


class _Resize(nn.Module):
    """Average (or repeat) pixels to the size that the classifier looks at."""

    def forward(self, x: Tensor) -> Tensor:
        # Pooling to the size that is already there costs a twentieth of the training.
        return x if x.shape[2:] == (IMAGE_SIZE, IMAGE_SIZE) else F.adaptive_avg_pool2d(x, IMAGE_SIZE)


def _network(channels: int, num_classes: int, *, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # and not those of GPUs, which would keep the seed
        return _layers(channels, num_classes)


def _layers(channels: int, num_classes: int) -> nn.Sequential:
    first, second, third = WIDTHS
    return nn.Sequential(
        _Resize(),
        # A stride in the first layer costs no accuracy on digits and saves half of the time.
        nn.Conv2d(channels, first, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.Conv2d(second, third, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(third),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(third * (IMAGE_SIZE // 8) ** 2, num_classes),
    )


def _batches(indices: Tensor, epochs: int, max_steps: int, generator: torch.Generator) -> list[Tensor]:
    size = min(BATCH_SIZE, len(indices))
    batches: list[Tensor] = []
    for _ in range(epochs):
        if len(batches) < max_steps:
            order = indices[torch.randperm(len(indices), generator=generator)]
            batches.extend(torch.split(order[: len(order) // size * size], size))
    return batches[:max_steps]


def _fit(
    classifier: nn.Module, images: Rows, labels: Tensor, batches: list[Tensor], generator: torch.Generator
) -> None:
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=len(batches))
    for batch in _with_progress(batches):
        with torch.enable_grad():
            logits: Tensor = classifier(_shift(images[batch], generator))
            loss = F.cross_entropy(logits, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _with_progress(batches: list[Tensor]) -> Iterator[Tensor]:
    # A bar only when there is something to wait for, and only where somebody watches.
    yield from Progress(batches, desc="training the classifier", unit="step", delay=2, disable=None, leave=False)


def _shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move every image by its own whole number of pixels, repeating the border."""
    _, _, height, width = images.shape
    reach = min(height, width) // 16
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator)
    rows = rearrange(offsets[0], "image -> image 1 1") + rearrange(torch.arange(height), "row -> row 1")
    columns = rearrange(offsets[1], "image -> image 1 1") + torch.arange(width)
    image = rearrange(torch.arange(len(images)), "image -> image 1 1")
    return rearrange(padded[image, :, rows, columns], "image row column channel -> image channel row column")
