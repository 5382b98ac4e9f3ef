"""Does D know its training images by heart? The test of BigGAN's section 4.2.

D calls an image real where its logit is above 0, or the mean over its patches. Of a D that has learned what images look
like, it does so as often for images that were kept from the training as for those that were not.

Tested in ``tests/engine/evaluation/test_memorization.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_blocks import Rows
from gan_blocks.engine.base.checks import Fields, require_at_least
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation.image_rows import SelectedImages
from gan_blocks.engine.evaluation.metric import Metric, Plan, Samples
from gan_blocks.engine.evaluation.scores.score import share_interval

__all__ = ["MEMORIZATION", "Critic", "MemorizationReport", "called_real", "measure_memorization"]

SEEN_AT_ONCE = 64

Critic = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class MemorizationReport:
    """Shares of images that D calls real, each with its 95 % interval and number of images.

    Attributes:
        training: Of images that it was trained on.
        held_out: Of images that it was not.
        generated: Of samples of the averaged generator.
    """

    training: tuple[float, tuple[float, float], int]
    held_out: tuple[float, tuple[float, float], int] | None
    generated: tuple[float, tuple[float, float], int]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            f"called_real_{name}": None
            if found is None
            else {"value": found[0], "interval": list(found[1]), "images": found[2]}
            for name, found in vars(self).items()
        }

    def lines(self) -> list[str]:
        """Render for a console of 100 columns."""
        named = {"training": "training images", "held_out": "held-out images", "generated": "samples"}
        return [
            f"  D calls real {found[0]:7.1%}  of {found[2]:,} {named[name]} ({found[1][0]:.1%} to {found[1][1]:.1%})"
            for name, found in vars(self).items()
            if found is not None
        ]


def called_real(critic: Critic, images: Rows, labels: Tensor) -> Tensor:
    """Which images have a logit above 0, bool, ``(images,)``; of logits of patches, their mean counts."""
    shares = torch.arange(len(images)).split(SEEN_AT_ONCE)
    logits = (critic(images[numbers], labels[numbers]) for numbers in shares)
    means = (part if part.dim() == 1 else part.flatten(1).mean(dim=1) for part in logits)
    return torch.cat([(part > 0).cpu() for part in means])


def measure_memorization(critic: Critic, samples: Samples, *, images: int) -> MemorizationReport:
    """Show D at most so many images of each kind, chosen by the seed."""

    def share(some: Rows, labels: Tensor, name: str) -> tuple[float, tuple[float, float], int]:
        stream = random_stream(samples.seed, "memorization", name)
        numbers = torch.randperm(len(some), generator=stream)[:images].sort().values
        members = called_real(critic, SelectedImages(some, numbers), labels[numbers])
        return members.double().mean().item(), share_interval(members), len(members)

    held_out = None
    if samples.held_out is not None and samples.held_out_labels is not None:
        held_out = share(samples.held_out, samples.held_out_labels, "held out")
    return MemorizationReport(
        training=share(samples.real, samples.real_labels, "training"),
        held_out=held_out,
        generated=share(samples.generated, samples.labels, "generated"),
    )


@dataclass(frozen=True)
class MemorizationOptions(Fields):
    """The test of D's memory."""

    memorization: int = 0
    """Images of each kind (training, held-out, samples) to count those that D calls real; 0: none."""

    def __post_init__(self) -> None:
        """Check the value."""
        super().__post_init__()
        require_at_least(self, 0, "memorization")


def _check(options: MemorizationOptions, plan: Plan) -> None:
    if options.memorization and plan.given is not None:
        raise UserError("--memorization asks D of a run, but --images names no run.")


def _measure(options: MemorizationOptions, samples: Samples) -> MemorizationReport | None:
    if not options.memorization or samples.critic is None:
        return None
    return measure_memorization(samples.critic, samples, images=options.memorization)


MEMORIZATION = Metric(name="memorization", options=MemorizationOptions, measure=_measure, check=_check)
