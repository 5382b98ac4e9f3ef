import copy
import json
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.randomness import random_stream
from gan_blocks.engine.evaluation import distances, novelty
from gan_blocks.engine.evaluation.classifier import TrainedClassifier, class_scores, split_by_class, train_classifier
from gan_blocks.engine.evaluation.novelty import novelty_ratio
from gan_blocks.engine.evaluation.quality import (
    QualityReport,
    class_agreement,
    diversity_ratio,
    measure_quality,
)
from tests.reference import quality as reference

NUM_CLASSES = 4
EPOCHS = 6


class Labeled(NamedTuple):
    images: Tensor
    labels: Tensor


def blobs(per_class: int, seed: int, channels: int = 1, size: int = 16) -> Labeled:
    """One bright spot per image, in the corner that its class names, with varying place, size and noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(NUM_CLASSES).repeat(per_class)
    center = torch.stack([labels // 2, labels % 2], dim=1) * 0.5 + 0.25
    center = center + 0.05 * torch.randn(len(labels), 2, generator=generator)
    width = 0.08 + 0.04 * torch.rand(len(labels), 1, 1, generator=generator)
    axis = (torch.arange(size) + 0.5) / size
    rows = (axis - center[:, :1])[:, :, None]
    columns = (axis - center[:, 1:])[:, None, :]
    spot = 2 * torch.exp(-(rows**2 + columns**2) / (2 * width**2)) - 1
    noise = 0.05 * torch.randn(len(labels), channels, size, size, generator=generator)
    return Labeled((spot[:, None] + noise).clamp(-1, 1), labels)


@pytest.fixture(scope="module")
def real() -> Labeled:
    return blobs(60, seed=0)


@pytest.fixture(scope="module")
def trained(real: Labeled) -> TrainedClassifier:
    return train_classifier(*real, num_classes=NUM_CLASSES, seed=0, epochs=EPOCHS)


@pytest.fixture
def classifier(trained: TrainedClassifier) -> nn.Module:
    return copy.deepcopy(trained.classifier)


@pytest.fixture
def trained_once(real: Labeled, trained: TrainedClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports on the same real images train the same classifier: do it once for all of them."""

    def train(*labeled: Tensor, **options: int) -> TrainedClassifier:
        assert options == {"num_classes": NUM_CLASSES, "seed": 0, "epochs": EPOCHS}
        assert all(map(torch.equal, labeled, real))
        return trained

    monkeypatch.setattr("gan_blocks.engine.evaluation.quality.train_classifier", train)


def measure(generated: Labeled, real: Labeled, **options: Tensor) -> QualityReport:
    return measure_quality(*generated, *real, num_classes=NUM_CLASSES, seed=0, epochs=EPOCHS, **options)


def as_lists(images: Tensor) -> list[list[float]]:
    return images.double().flatten(1).tolist()


# Split


@given(counts=st.lists(st.integers(2, 40), min_size=1, max_size=5), fraction=st.floats(0.05, 0.95))
def test_the_split_takes_the_same_share_of_every_class_and_loses_nothing(counts: list[int], fraction: float):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    split = split_by_class(labels, seed=3, held_out_fraction=fraction)
    assert sorted(torch.cat(split).tolist()) == list(range(len(labels)))
    for label, n in enumerate(counts):
        held_out = int((labels[split.held_out] == label).sum())
        assert 1 <= held_out <= n - 1
        assert held_out in {1, n - 1} or abs(held_out - fraction * n) <= 0.5


def test_the_split_is_a_function_of_labels_and_seed(real: Labeled):
    state = torch.get_rng_state()
    first, again, other = (split_by_class(real.labels, seed=seed) for seed in (1, 1, 2))
    assert first.held_out.equal(again.held_out)
    assert not first.held_out.equal(other.held_out)
    assert torch.get_rng_state().equal(state)


def test_a_class_of_one_image_is_trained_on_and_not_tested():
    split = split_by_class(torch.tensor([5, 5, 5, 2]), seed=0)
    assert 3 in split.training


def test_rejects_labels_of_which_none_occurs_twice():
    with pytest.raises(UserError, match=r"^The real images hold no class with two images: "):
        split_by_class(torch.tensor([0, 1, 2]), seed=0)


# Classifier


@pytest.mark.parametrize("channels", [1, 3])
def test_the_classifier_learns_which_corner_is_bright(channels: int):
    training = blobs(60, seed=1, channels=channels)
    classifier, accuracy = train_classifier(*training, num_classes=NUM_CLASSES, seed=0, epochs=EPOCHS)
    fresh = blobs(25, seed=2, channels=channels)
    assert accuracy >= 0.97
    assert class_agreement(classifier, *fresh) == pytest.approx(accuracy, abs=0.03)
    assert not any(module.training for module in classifier.modules())


def test_the_held_out_accuracy_is_that_of_images_the_classifier_has_not_seen():
    # Labels that mean nothing can be learned by heart but not predicted.
    images = torch.randn(80, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(80) % 2
    split = split_by_class(labels, seed=0)
    classifier, accuracy = train_classifier(images, labels, num_classes=2, seed=0, epochs=20)
    assert class_agreement(classifier, images[split.training], labels[split.training]) > 0.9
    assert accuracy < 0.8
    assert accuracy == class_agreement(classifier, images[split.held_out], labels[split.held_out])


def test_training_is_a_function_of_the_seed_and_leaves_the_global_state_alone():
    images, labels = blobs(8, seed=0, size=8)
    state = torch.get_rng_state()
    first, again, other = (
        train_classifier(images, labels, num_classes=NUM_CLASSES, seed=seed, epochs=1).classifier.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(first[key].equal(again[key]) for key in first)
    assert not all(first[key].equal(other[key]) for key in first)
    assert torch.get_rng_state().equal(state)


def test_training_stops_at_the_bound_on_steps():
    images, labels = blobs(64, seed=0, size=8)
    classifier, _ = train_classifier(images, labels, num_classes=NUM_CLASSES, seed=0, epochs=50, max_steps=7)
    assert next(m for m in classifier.modules() if isinstance(m, nn.BatchNorm2d)).num_batches_tracked == 7


def test_training_works_where_gradients_are_switched_off():
    with torch.no_grad():
        train_classifier(*blobs(4, seed=0, size=8), num_classes=NUM_CLASSES, seed=0, epochs=1)


def test_scoring_changes_neither_statistics_nor_mode(classifier: nn.Module, real: Labeled):
    classifier.train()
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    scores = class_scores(classifier, real.images[:5])
    assert classifier.training
    classifier.eval()
    assert all(value.equal(before[key]) for key, value in classifier.state_dict().items())
    torch.testing.assert_close(scores, classifier(real.images[:5]))


def test_agreement_is_the_share_assigned_to_the_requested_class():
    logits = torch.tensor([[3.0, 1.0], [0.0, 1.0], [2.0, 5.0], [1.0, 0.0]])
    assert class_agreement(nn.Identity(), logits, torch.tensor([0, 0, 1, 1])) == 0.5


# Distances


@pytest.fixture(params=[None, 5], ids=["one block", "blocks of 5 rows"])
def block_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(distances, "MAX_BLOCK_ROWS", request.param)


@pytest.mark.usefixtures("block_rows")
def test_diversity_equals_the_loop_over_pairs(rng: torch.Generator):
    generated, real = torch.rand(13, 2, 3, 3, generator=rng), torch.randn(24, 2, 3, 3, generator=rng)
    generated_labels, real_labels = torch.arange(13) % 2 * 2, torch.arange(24) % 3  # class 1 was never asked for
    expected = reference.diversity_ratio(
        as_lists(generated), generated_labels.tolist(), as_lists(real), real_labels.tolist()
    )
    assert diversity_ratio(generated, generated_labels, real, real_labels) == pytest.approx(expected, rel=1e-10)


@pytest.mark.usefixtures("block_rows")
def test_novelty_equals_the_loop_over_pairs(rng: torch.Generator):
    generated, training, held_out = (torch.randn(n, 1, 3, 3, generator=rng) for n in (7, 16, 6))
    sets = as_lists(generated), as_lists(training), as_lists(held_out)
    assert novelty_ratio(generated, training, held_out) == pytest.approx(reference.novelty_ratio(*sets), rel=1e-10)
    expected = reference.leave_one_out_novelty_ratio(*sets[:2])
    assert novelty_ratio(generated, training) == pytest.approx(expected, rel=1e-10)


def test_novelty_lets_a_part_of_many_training_images_take_their_turn(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(novelty, "MAX_COMPARED", 4)
    generated, training = torch.randn(3, 1, 2, 2, generator=rng), torch.randn(9, 1, 2, 2, generator=rng)
    turns = [0, 3, 6]
    baseline = sum(
        min(reference.distance(as_lists(training)[i], other) for j, other in enumerate(as_lists(training)) if j != i)
        for i in turns
    ) / len(turns)
    nearest = [min(reference.distance(g, t) for t in as_lists(training)) for g in as_lists(generated)]
    assert novelty_ratio(generated, training) == pytest.approx(sum(nearest) / 3 / baseline, rel=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_novelty_compares_some_of_many_images_chosen_by_the_seed(
    seed: int, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(novelty, "MAX_COMPARED", 4)
    generated, training, held_out = (torch.randn(n, 1, 2, 2, generator=rng) for n in (9, 12, 6))
    some, others = (
        images[torch.randperm(len(images), generator=random_stream(seed, "novelty"))[:4]]
        for images in (generated, held_out)
    )
    expected = reference.novelty_ratio(as_lists(some), as_lists(training), as_lists(others))
    assert novelty_ratio(generated, training, held_out, seed=seed) == pytest.approx(expected, rel=1e-10)


def test_distances_of_large_images_keep_to_small_blocks(monkeypatch: pytest.MonkeyPatch, rng: torch.Generator):
    images = torch.randn(6, 1, 4, 4, generator=rng)
    whole = distances.mean_pairwise_distance(images)
    monkeypatch.setattr(distances, "MAX_BLOCK_ELEMENTS", 3)  # less than one image
    assert distances.mean_pairwise_distance(images) == pytest.approx(whole, rel=1e-12)


# What the numbers mean


@pytest.mark.usefixtures("trained_once")
def test_new_real_images_score_as_real_on_all_three(real: Labeled):
    report = measure(blobs(60, seed=7), real)
    assert report.agreement == pytest.approx(report.classifier_accuracy, abs=0.03)
    assert report.diversity == pytest.approx(1, abs=0.05)
    assert report.novelty == pytest.approx(1, abs=0.05)


@pytest.mark.usefixtures("trained_once")
def test_a_generator_that_recites_all_its_training_images_has_no_novelty(real: Labeled):
    report = measure(real, real)
    assert report.novelty == pytest.approx(0, abs=1e-6)
    assert report.agreement == pytest.approx(report.classifier_accuracy, abs=0.03)
    assert report.diversity == pytest.approx(1)


@pytest.mark.usefixtures("trained_once")
def test_one_repeated_image_per_class_has_no_diversity(real: Labeled):
    fresh = blobs(1, seed=8)
    repeated = Labeled(fresh.images.repeat(10, 1, 1, 1), fresh.labels.repeat(10))
    report = measure(repeated, real)
    assert report.diversity == pytest.approx(0, abs=1e-6)
    assert report.agreement == 1


@pytest.mark.usefixtures("trained_once")
def test_noise_is_in_no_class_and_unlike_every_real_image(real: Labeled, rng: torch.Generator):
    noise = Labeled(torch.rand(200, 1, 16, 16, generator=rng) * 2 - 1, torch.arange(200) % NUM_CLASSES)
    report = measure(noise, real)
    assert report.agreement < 0.5
    assert report.novelty > 2


@pytest.mark.usefixtures("trained_once")
def test_unseen_real_images_can_set_the_scale_of_novelty(real: Labeled):
    fresh, unseen = blobs(30, seed=7), blobs(30, seed=9)
    report = measure(fresh, real, held_out=unseen.images)
    assert report.novelty == novelty_ratio(fresh.images, real.images, unseen.images)
    assert report.novelty == pytest.approx(1, abs=0.1)


def test_the_same_seed_and_images_give_the_same_report():
    fresh, few = blobs(2, seed=7), blobs(6, seed=0)
    assert measure(fresh, few) == measure(fresh, few)


# The report


def report_of(by_class: dict[int, float]) -> QualityReport:
    return QualityReport(
        num_generated=1000,
        num_real=5000,
        classifier_accuracy=0.987,
        agreement=0.9512,
        diversity=0.934,
        novelty=1.066,
        agreement_by_class=by_class,
    )


def test_the_report_shows_each_number_beside_what_it_is_compared_with():
    assert report_of({0: 1.0, 1: 0.9}).lines() == [
        "1,000 generated images against 5,000 real ones",
        "  agreement   95.1%  drawn in the class asked for (unseen real images: 98.7%)",
        "  diversity    0.93  spread within a class, 1 = as the real images, 0 = one image repeated",
        "  novelty      1.07  distance to the training images, 1 = as another real image, 0 = a copy",
        "  by class: 0 100%, 1 90%",
    ]


def test_the_report_names_the_classes_when_it_is_told_their_names():
    assert report_of({0: 1.0, 1: 0.9}).lines(["ankle boot", "bag"])[-1] == "  by class: ankle boot 100%, bag 90%"


def test_the_report_of_many_classes_lists_the_worst_within_the_console():
    lines = report_of({label: 1 - label / 200 for label in range(100)}).lines()
    assert lines[4].startswith("  the 20 worst of 100 classes: 99 50%, 98 51%, ")
    assert "80 60%" in lines[-1]
    assert "79 60%" not in "".join(lines)
    assert max(map(len, lines)) <= 100


def test_the_report_survives_json():
    report = report_of({0: 1.0, 11: 0.5})
    restored = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert restored["agreement_by_class"] == {"0": 1.0, "11": 0.5}
    assert restored["novelty"] == 1.066
    assert set(restored) == set(QualityReport.__dataclass_fields__)


# Errors


def test_rejects_images_of_another_shape(real: Labeled):
    with pytest.raises(
        UserError,
        match=r"^Generated images are 3x16x16 but real ones 1x16x16 \(channels x height x width\): they come from ",
    ):
        measure(blobs(2, seed=0, channels=3), real)


def test_rejects_values_that_are_not_finite(real: Labeled):
    images, labels = blobs(2, seed=0)
    images[3, 0, 1, 1] = torch.nan
    with pytest.raises(UserError, match=r"^The generated images hold values that are not finite: "):
        measure(Labeled(images, labels), real)


def test_rejects_an_empty_set_of_generated_images(real: Labeled):
    with pytest.raises(UserError, match=r"^There are no generated images to measure\.$"):
        measure(Labeled(real.images[:0], real.labels[:0]), real)


def test_rejects_a_class_of_one_generated_image(real: Labeled):
    with pytest.raises(UserError, match=r"^Class 2 has 1 generated image\(s\), but diversity needs two or more\.$"):
        diversity_ratio(real.images[:1], torch.tensor([2]), *real)


def test_rejects_a_requested_class_without_real_images(real: Labeled):
    with pytest.raises(UserError, match=r"^Class 9 has 0 real image\(s\), but diversity needs two or more\.$"):
        diversity_ratio(real.images[:2], torch.tensor([9, 9]), *real)


def test_a_class_of_one_real_image_is_left_out_of_the_diversity_with_a_word(real: Labeled):
    first = (real.labels == 1).nonzero()[0]
    kept = torch.cat([(real.labels != 1).nonzero().flatten(), first])
    fewer = Labeled(real.images[kept], real.labels[kept])
    others = real.labels != 1
    report = measure_quality(*real, *fewer, num_classes=NUM_CLASSES, seed=0, epochs=1)
    assert report.diversity == diversity_ratio(real.images[others], real.labels[others], *fewer)
    assert report.classes_without_spread == (1,)
    assert "want of a second real image: 1, such as class 1" in report.lines()[-1]
    with pytest.raises(UserError, match=r"^No class that was asked for has two real images, "):
        diversity_ratio(real.images[:2], torch.tensor([1, 1]), *fewer)


def test_rejects_real_images_without_any_difference():
    same, labels = torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)
    with pytest.raises(UserError, match=r"^The real images of each class are all the same, "):
        diversity_ratio(same, labels, same, labels)
    with pytest.raises(UserError, match=r"^Every real image occurs twice, so novelty cannot be measured: "):
        novelty_ratio(torch.ones(1, 1, 2, 2), same)
    with pytest.raises(UserError, match=r"^Novelty needs two or more real images, but there are 1\.$"):
        novelty_ratio(same, same[:1])
