"""What ``evaluate`` knows of a metric: its options, what can be checked before any work, how it measures.

Tested in ``tests/engine/evaluation/test_metrics.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from gan_blocks import Rows
from gan_blocks.engine.base.checks import Fields
from gan_blocks.engine.data.config import ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.evaluation.classifier import TrainedClassifier
from gan_blocks.engine.evaluation.features.cache import MEASURED_ANEW, RealFigures
from gan_blocks.engine.evaluation.features.sets import FeatureSets

__all__ = ["Metric", "Plan", "Report", "Samples"]

OptionsT = TypeVar("OptionsT", bound=Fields)


class Report(Protocol):
    """What a metric found."""

    def as_dict(self) -> dict[str, object]:
        """Plain values for ``evaluation.json``."""

    def lines(self) -> list[str]:
        """Render for a console of 100 columns."""


class Plan(NamedTuple):
    """What is going to be compared."""

    config: ImageFields
    """Config of the run, or what stands for it where images are given."""
    num: int
    """How many samples will be drawn, classes evenly."""
    real: ImageSet
    """The real images."""
    given: ImageSet | None = None
    """The samples, where these are images that are there already."""
    held_out: ImageSet | None = None
    """Real images that were kept from the training, if some were."""
    features: str | None = None
    """What ``--features`` names."""


class Samples(NamedTuple):
    """What is compared: ``generated[numbers]`` and ``real[numbers]`` are read in batches, since neither need fit.

    A metric that cannot do without all images at once asks for ``images`` and ``real_images``.
    """

    generated: Rows
    """Generated images in [-1, 1], ``(images, channels, height, width)``."""
    labels: Tensor
    """The classes that were asked for, int64, ``(images,)``."""
    real: Rows
    """Real images of that size."""
    real_labels: Tensor
    """Their classes."""
    num_classes: int
    """Number of classes of the networks."""
    seed: int
    """Seed of everything random in a measurement."""
    class_names: tuple[str, ...] = ()
    """One name a class, as far as classes have names."""
    held_out: Rows | None = None
    """Real images that were kept from the training, if some were."""
    held_out_labels: Tensor | None = None
    """Their classes."""
    features: FeatureSets | None = None
    """What a network makes of all of them, where ``--features`` names one."""
    judge: TrainedClassifier | None = None
    """The classifier of the real images, where it was trained before."""
    critic: Callable[[Tensor, Tensor], Tensor] | None = None
    """D of the run: images and labels to logits, where there is one."""
    figures: RealFigures = MEASURED_ANEW
    """Keeps what a metric finds of the real images alone, for the next evaluation."""

    @property
    def images(self) -> Tensor:
        """All generated images, in memory."""
        return self.generated[torch.arange(len(self.generated))]

    @property
    def real_images(self) -> Tensor:
        """All real images, in memory."""
        return self.real[torch.arange(len(self.real))]


def _nothing_to_check(_options: Fields, _plan: Plan) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Metric(Generic[OptionsT]):
    """A metric that ``evaluate`` can be asked for.

    A new one is a value of this class in the file that measures it, and a line in ``METRICS``; a recipe of your own may
    add one: ``METRICS["mine"] = Metric(...)``.

    Attributes:
        name: Its key in the table.
        options: A frozen dataclass that inherits ``Fields``; each field is an option of the command, and the defaults
            leave the metric out, or are good for every run.
        measure: Gives the report, or None where the options do not ask for it.
        check: Raises UserError for what cannot work, before anything is drawn.
    """

    name: str
    options: type[OptionsT]
    measure: Callable[[OptionsT, Samples], Report | None]
    check: Callable[[OptionsT, Plan], None] = _nothing_to_check
