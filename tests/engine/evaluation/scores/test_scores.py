from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gan_blocks import classifier_score, density_coverage, frechet_distance, kernel_distance, precision_recall
from gan_blocks.engine.evaluation.features.cache import MEASURED_ANEW
from gan_blocks.engine.evaluation.features.network import FeatureNetwork
from gan_blocks.engine.evaluation.features.rows import FeatureSet
from gan_blocks.engine.evaluation.features.sets import FeatureSets
from gan_blocks.engine.evaluation.metric import Metric, Samples
from gan_blocks.engine.evaluation.scores import neighborhoods
from gan_blocks.engine.evaluation.scores.about import FEATURES
from gan_blocks.engine.evaluation.scores.classes import CLASSIFIER_SCORE
from gan_blocks.engine.evaluation.scores.copies import COPIES, nearer_than_training_images
from gan_blocks.engine.evaluation.scores.frechet import FRECHET
from gan_blocks.engine.evaluation.scores.kernel import KERNEL
from gan_blocks.engine.evaluation.scores.neighborhoods import NEIGHBORHOODS
from gan_blocks.engine.evaluation.scores.score import Counts, Score, ScoreReport, mean_interval, share_interval
from gan_blocks.engine.evaluation.scores.slices import SLICES, sliced_distances

ALL = (FRECHET, KERNEL, SLICES, CLASSIFIER_SCORE, NEIGHBORHOODS, COPIES)
NETWORK = FeatureNetwork("few-32", lambda images: images, num_features=6, side=32, head=lambda features: 4 * features)


def set_of(features: Tensor, labels: Tensor) -> FeatureSet:
    return FeatureSet(NETWORK, features, labels, torch.arange(len(features)))


def samples_of(real: Tensor, fake: Tensor, *, classes: int = 3, held_out: Tensor | None = None) -> Samples:
    labels = [torch.arange(len(each)) % classes for each in (real, fake)]
    others = None if held_out is None else set_of(held_out, torch.arange(len(held_out)) % classes)
    sets = FeatureSets(NETWORK, set_of(fake, labels[1]), set_of(real, labels[0]), others, 0, MEASURED_ANEW)
    images = torch.zeros(2, 1, 4, 4)
    return Samples(images, labels[1], images, labels[0], classes, 0, ("cat", "dog", "owl")[:classes], features=sets)


def cloud(count: int, seed: int, *, classes: int = 3, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    kinds = 5 * torch.eye(6)[torch.arange(count) % classes]
    return kinds + torch.randn(count, 6, generator=generator) + shift


def measured(metric: Metric, samples: Samples) -> ScoreReport:
    report = metric.measure(metric.options(), samples)
    assert isinstance(report, ScoreReport)
    return report


def scores(samples: Samples) -> dict[str, Score]:
    return {score.key: score for metric in ALL for score in measured(metric, samples).scores}


def test_scores_are_the_functions_of_the_library():
    real, fake = cloud(90, 1), cloud(60, 2, shift=0.5)
    found = scores(samples_of(real, fake))
    assert found["frechet_distance"].value == pytest.approx(frechet_distance(real, fake), rel=1e-9)
    assert found["frechet_distance"].name == "FD-few-32"
    precision, recall = precision_recall(real, fake)
    density, coverage = density_coverage(real, fake)
    expected = {"precision": precision, "recall": recall, "density": density, "coverage": coverage}
    assert {name: found[name].value for name in expected} == pytest.approx(expected)
    assert found["classifier_score"].value == pytest.approx(classifier_score(4 * fake, splits=1).mean, rel=1e-6)
    by_class = [frechet_distance(real[label::3], fake[label::3]) for label in range(3)]
    assert found["intra_class_frechet_distance"].value == pytest.approx(sum(by_class) / 3, rel=1e-9)
    stream = torch.Generator().manual_seed(3)
    kernel = kernel_distance(real, fake, subset_size=30, num_subsets=300, generator=stream)
    low, high = found["kernel_distance"].interval
    assert low < kernel.mean < high


def test_the_floor_is_the_score_of_held_out_images():
    real, fake, other = cloud(90, 1), cloud(60, 2, shift=0.5), cloud(60, 3)
    found = scores(samples_of(real, fake, held_out=other))
    own = scores(samples_of(real, other))
    for key in ("frechet_distance", "intra_class_frechet_distance", "precision", "recall", "density", "coverage"):
        assert found[key].floor == pytest.approx(own[key].value, rel=1e-6), key
    assert found["frechet_distance"].floor < found["frechet_distance"].value
    assert found["sliced_feature_distance"].floor < found["sliced_feature_distance"].value
    assert found["frechet_distance"].counts == Counts(60, 90, 60, 90)


def test_other_samples_give_values_inside_the_intervals():
    """19 of 20 times; here of 20 draws, for each of the scores with an interval."""
    real = cloud(300, 1)
    runs = [scores(samples_of(real, cloud(150, 10 + seed, shift=0.3), classes=3)) for seed in range(10)]
    for key in ("frechet_distance", "kernel_distance", "precision", "density"):
        center = sum(run[key].value for run in runs) / len(runs)
        inside = [low <= center <= high for low, high in (run[key].interval for run in runs)]
        assert sum(inside) >= 8, key


def test_a_lost_class_is_the_worst_by_name():
    real, fake = cloud(90, 1), cloud(90, 2)
    fake[1::3] = fake[0::3]
    report = measured(FRECHET, samples_of(real, fake))
    assert report.details[0].startswith("    worst classes: dog ")
    by_class = report.as_dict()["intra_class_frechet_distance"]["by_class"]
    assert max(by_class, key=by_class.get) == "1"


def test_without_classes_or_without_two_of_any_there_is_no_distance_within_them():
    real = cloud(90, 1)
    assert len(measured(FRECHET, samples_of(real, cloud(60, 2), classes=1)).scores) == 1
    samples = samples_of(real, cloud(60, 2))
    sets = samples.features
    assert sets is not None
    lonely = replace(sets, generated=set_of(cloud(6, 2), torch.arange(6)))
    report = measured(FRECHET, samples._replace(features=lonely))
    assert report.details == ("  no class has two samples and two real images: no distance within classes",)


def test_copies_are_nearer_than_training_images_are_to_each_other():
    real = cloud(200, 1)
    copies = real[:40] + 0.01
    assert nearer_than_training_images(set_of(copies, torch.zeros(40)), set_of(real, torch.zeros(200))).all()
    found = measured(COPIES, samples_of(real, torch.cat([copies, cloud(40, 5)]), held_out=cloud(80, 6))).scores[0]
    assert found.floor is not None
    assert 0.2 < found.floor < 0.7
    assert found.value == pytest.approx((1 + found.floor) / 2, abs=0.15)


def test_many_images_are_compared_by_a_part_that_is_stated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighborhoods, "MOST_COMPARED", 30)
    report = measured(NEIGHBORHOODS, samples_of(cloud(90, 1), cloud(60, 2)))
    assert report.details == ("    of at most 30 of each set, chosen by the seed",)
    assert report.scores[0].counts == Counts(30, 30, 30, 30)


def test_the_sliced_distance_of_shifted_features_is_the_mean_shift():
    features = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    found = sliced_distances(features, features + torch.tensor([2.0, 0.0, 0.0]), torch.Generator().manual_seed(1))
    assert found.mean().item() == pytest.approx(1.0, abs=0.06)  # E|cos| of a random direction in space is a half
    assert sliced_distances(features, features[torch.randperm(500)], torch.Generator()).max() < 1e-6


def test_the_report_says_of_what_the_features_are():
    report = FEATURES.measure(FEATURES.options(), samples_of(cloud(90, 1), cloud(60, 2)))
    assert report is not None
    assert report.lines()[0] == "features few-32: 60 samples against 90 real images; 95 % intervals;"
    about = report.as_dict()["features"]
    assert about.items() >= {"network": "few-32", "side": 32, "held_out": False, "levels": 256, "seed": 0}.items()
    few = FEATURES.measure(FEATURES.options(), samples_of(cloud(90, 1), cloud(6, 2)))
    assert few is not None
    assert "6 samples of 6 features" in few.lines()[2]


def test_lines_fit_the_console():
    counts = Counts(1, 1, 1, 1)
    score = Score("kernel_distance", "KD-efflite0-128", 0.0123456, (0.0101, 0.0145), 0.00002, counts, scale=1000)
    assert score.line() == "  KD-efflite0-128 x 1,000                12.35  10.1 to 14.5            real      0.02"
    assert score.as_dict()["kernel_distance"]["value"] == 0.0123456


def test_the_value_of_real_images_and_their_number_are_both_in_the_json():
    found = Score("quality", "Q-tiny-8", 3.0, None, 12.5, Counts(10, 60_000, 20, 59_980)).as_dict()["quality"]
    assert (found["floor"], found["real"]) == (12.5, 60_000)


@pytest.mark.parametrize("name", ["floor", "real", "name"])
def test_further_values_take_no_place_of_another(name: str):
    with pytest.raises(ValueError, match=f" and its further values both have an entry {name}; one needs another name"):
        Score("quality", "Q-tiny-8", 3.0, None, 12.5, Counts(1, 2, 3, 4), more={name: 0})


def test_two_scores_of_a_report_have_two_keys():
    score = Score("quality", "Q-tiny-8", 3.0, None, None, Counts(1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"^Q-tiny-8 and Q-tiny-8 both have an entry quality; "):
        ScoreReport((score, score))


def test_intervals_of_means_and_shares():
    assert mean_interval(torch.tensor([1.0])) is None
    assert mean_interval(torch.tensor([1.0, 3.0])) == pytest.approx((2 - 1.96, 2 + 1.96))
    low, high = share_interval(torch.tensor([True] * 20))
    assert (low, high) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert share_interval(torch.tensor([True, False] * 50)) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_without_features_nothing_is_measured():
    samples = samples_of(cloud(20, 1), cloud(20, 2))._replace(features=None)
    assert [metric.measure(metric.options(), samples) for metric in (FEATURES, *ALL)] == [None] * 7
