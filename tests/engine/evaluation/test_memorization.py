import pytest
import torch
from torch import Tensor

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.config import ImageFields
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.evaluation.memorization import (
    MEMORIZATION,
    MemorizationOptions,
    called_real,
    measure_memorization,
)
from gan_blocks.engine.evaluation.metric import Plan, Samples


def images_of(values: list[float]) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def brightness(images: Tensor, labels: Tensor) -> Tensor:
    return images.mean(dim=(1, 2, 3)) - labels.float()


def samples(held_out: Tensor | None) -> Samples:
    real, fake = images_of([0.5] * 8 + [-0.5] * 2), images_of([-1.0] * 10)
    zeros = torch.zeros(10, dtype=torch.int64)
    labels = None if held_out is None else zeros[: len(held_out)]
    return Samples(fake, zeros, real, zeros, 2, 0, held_out=held_out, held_out_labels=labels, critic=brightness)


def test_images_are_shown_with_their_labels():
    labels = torch.tensor([0, 1] * 50)
    assert torch.equal(called_real(brightness, images_of([0.5] * 100), labels), labels == 0)


def test_of_logits_of_patches_their_mean_counts():
    def patches(images: Tensor, _labels: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3)).reshape(-1, 1, 1, 1) + torch.tensor([[-3.0, 1.0], [1.0, 1.0]])

    images = images_of([0.5, -0.5] * 50)
    assert called_real(patches, images, torch.zeros(100)).tolist() == [True, False] * 50
    one = lambda images, labels: brightness(images, labels)[:, None]  # noqa: E731
    assert called_real(one, images, torch.zeros(100)).tolist() == [True, False] * 50


def test_shares_are_those_above_0():
    report = measure_memorization(brightness, samples(images_of([0.5, -0.5])), images=100)
    assert report.training[0] == pytest.approx(0.8)
    assert report.held_out is not None
    assert report.held_out[0] == 0.5
    assert report.generated[0] == 0
    assert report.as_dict()["called_real_training"].items() >= {"value": report.training[0], "images": 10}.items()
    assert [line.split("of ")[1].split(" (")[0] for line in report.lines()] == [
        "10 training images",
        "2 held-out images",
        "10 samples",
    ]


def test_a_part_is_chosen_by_the_seed():
    few = measure_memorization(brightness, samples(None), images=4)
    assert few.held_out is None
    assert few.training[2] == 4
    assert few == measure_memorization(brightness, samples(None), images=4)
    assert len(few.lines()) == 2


def test_is_measured_where_it_is_asked_for():
    assert MEMORIZATION.measure(MemorizationOptions(), samples(None)) is None
    assert MEMORIZATION.measure(MemorizationOptions(memorization=3), samples(None)) is not None
    with pytest.raises(UserError, match=r"^--memorization must be at least 0, but got -1\.$"):
        MemorizationOptions(memorization=-1)


def test_images_without_a_run_have_no_discriminator_to_ask():
    images = ImageSet(lambda numbers: numbers, torch.zeros(4), ("a",), PixelLayout(4, 1))
    plan = Plan(ImageFields(), 4, images, given=images)
    with pytest.raises(UserError, match=r"^--memorization asks D of a run, but --images names no run\.$"):
        MEMORIZATION.check(MemorizationOptions(memorization=3), plan)
