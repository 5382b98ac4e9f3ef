from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gan_blocks import FeatureMoments
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.evaluation.features import rows as feature_rows
from gan_blocks.engine.evaluation.features.cache import Cache, digest_of_images
from gan_blocks.engine.evaluation.features.network import FeatureNetwork
from gan_blocks.engine.evaluation.features.rows import FeatureSet, computed_rows, feature_set
from gan_blocks.engine.evaluation.features.sets import check_feature_counts
from gan_blocks.engine.evaluation.image_rows import RealImages
from gan_blocks.engine.evaluation.metrics import METRICS
from gan_blocks.engine.evaluation.pairs import PairOptions
from gan_blocks.engine.evaluation.patches import SlicedWassersteinOptions
from gan_blocks.engine.evaluation.real_side import RealSide

CPU = torch.device("cpu")


def image_set(count: int, classes: int = 2) -> ImageSet:
    pixels = torch.randint(256, (count, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
    labels = torch.arange(count) % classes
    pixels[labels == 1] //= 2
    return ImageSet(lambda numbers: pixels[numbers], labels, tuple(map(str, range(classes))), PixelLayout(16, 1))


class Counted:
    """A network of three features that counts the images it has seen."""

    def __init__(self) -> None:
        self.seen = 0
        self.network = FeatureNetwork("counted-16", self._look, num_features=3, digest="0123")

    def _look(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.mean(dim=(2, 3)) * torch.tensor([1.0, 2.0, -1.0])


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.mark.parametrize(("side", "at_once"), [(None, 128), (32, 128), (64, 64), (128, 16), (224, 16)])
def test_a_processor_sees_more_of_small_images_at_once(side: int | None, at_once: int):
    seen: list[int] = []

    def look(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.mean(dim=(2, 3))

    network = FeatureNetwork("batches", look, num_features=3, side=side)
    (found,) = computed_rows(network, torch.zeros(130, 1, 16, 16))
    assert found[1].shape == (130, 3)
    assert seen == [at_once] * (130 // at_once) + [130 % at_once]


def test_features_come_in_the_order_of_the_images(counted: Counted):
    real = image_set(600)
    features = feature_set(counted.network, RealImages(real), real.labels)
    means = real.batch(torch.arange(600))[0].mean(dim=(1, 2, 3))
    torch.testing.assert_close(features.features()[:, 0], means, rtol=0, atol=1e-6)
    part = features.among(torch.tensor([5, 3])).features()
    assert torch.equal(part, features.features()[[5, 3]])
    assert features.of_class(1).numbers.tolist() == list(range(1, 600, 2))


def test_moments_are_pooled_a_part_at_a_time(counted: Counted, monkeypatch: pytest.MonkeyPatch):
    real = image_set(50)
    features = feature_set(counted.network, RealImages(real), real.labels)
    expected = FeatureMoments(3)
    expected.update(features.features())
    monkeypatch.setattr(feature_rows, "POOLED_AT_ONCE", 7)
    torch.testing.assert_close(features.moments().covariance, expected.covariance)


def test_kept_features_are_those_of_the_same_images_and_network_alone(tmp_path: Path, counted: Counted):
    cache, real = Cache(tmp_path / "new" / "cache"), RealImages(image_set(30))
    digest = digest_of_images(real)
    first = cache.rows(counted.network, real, digest)
    again = cache.rows(counted.network, real, digest)
    assert first is not None
    assert again is not None
    assert counted.seen == 30
    assert torch.equal(first[torch.arange(30)], again[torch.arange(30)])
    other = RealImages(image_set(31))
    assert digest_of_images(other) != digest
    cache.rows(counted.network, other, digest_of_images(other))
    assert counted.seen == 61


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: b"", lambda data: b"\0" * len(data), lambda data: data[:-4] + b"\xff" * 4],
    ids=["cut off", "empty", "zeros", "not finite"],
)
def test_a_damaged_entry_is_made_again(tmp_path: Path, counted: Counted, damage: Callable[[bytes], bytes]):
    cache, real = Cache(tmp_path), RealImages(image_set(30))
    expected = cache.rows(counted.network, real, "digest")
    assert expected is not None
    expected_rows = expected[torch.arange(30)]
    kept = cache.values("floor", (1,), lambda: [1.5])
    weights = cache.tensors("classifier", (1,), lambda: {"weight": torch.ones(2)})
    for path in tmp_path.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    found = cache.rows(counted.network, real, "digest")
    assert counted.seen == 60
    assert found is not None
    assert torch.equal(found[torch.arange(30)], expected_rows)
    assert cache.values("floor", (1,), lambda: [1.5]) == kept
    found_weights = cache.tensors("classifier", (1,), lambda: {"weight": torch.ones(2)})
    assert torch.equal(found_weights["weight"], weights["weight"])


def test_an_entry_of_other_content_is_made_again(tmp_path: Path):
    cache = Cache(tmp_path)
    assert cache.values("floor", (1,), lambda: [1.5, None]) == [1.5, None]
    (path,) = tmp_path.iterdir()
    path.write_text('{"a": 1}')
    assert cache.values("floor", (1,), lambda: 2.0) == 2.0
    assert cache.values("floor", (1,), lambda: 3.0) == 2.0
    assert cache.found == [path.name]


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_cache(
    tmp_path: Path, counted: Counted, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("in the way")
    cache, real = Cache(tmp_path / "file" / "cache"), RealImages(image_set(30))
    assert cache.rows(counted.network, real, "digest") is None
    assert cache.values("floor", (1,), lambda: 2) == 2
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("Nothing is kept of the real images: ")


def test_features_that_are_not_finite_are_never_kept(tmp_path: Path):
    network = FeatureNetwork("broken", lambda images: images.mean(dim=(2, 3)) / 0, num_features=1, digest="01")
    with pytest.raises(UserError, match="are not finite"):
        Cache(tmp_path).rows(network, RealImages(image_set(10)), "digest")
    assert list(tmp_path.iterdir()) == []


def side(
    real: ImageSet, cache: Path | None, network: FeatureNetwork | None, held_out: ImageSet | None = None
) -> RealSide:
    features = "classifier" if network is None else "given:network"
    return RealSide(real, held_out, real.num_classes, 0, Cache(cache), network, features)


def test_a_second_comparison_takes_all_of_the_real_images_from_the_cache(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
):
    real, samples = image_set(40), RealImages(image_set(12))
    first = side(real, tmp_path, counted.network).sets(samples, torch.arange(12) % 2)
    assert first is not None
    value = first.of_floor("count", lambda some, other: [len(some), len(other)])
    again = side(real, tmp_path, counted.network)
    monkeypatch.setattr("gan_blocks.engine.evaluation.features.trained.train_classifier", None)
    second = again.sets(samples, torch.arange(12) % 2)
    assert second is not None
    assert counted.seen == 40 + 12 + 12
    assert second.of_floor("count", lambda some, other: None) == value == [28, 12]


def figures_of_all_metrics(of: RealSide, samples: RealImages) -> dict[str, object]:
    asked = {"sliced_wasserstein": SlicedWassersteinOptions(swd=8), "ms_ssim": PairOptions(ms_ssim=4)}
    compared = of.samples(samples, samples.images.labels)
    reports = (metric.measure(asked.get(name) or metric.options(), compared) for name, metric in METRICS.items())
    return {name: value for report in reports if report is not None for name, value in report.as_dict().items()}


@pytest.mark.parametrize("held_out", [None, image_set(20)], ids=["none", "20 held out"])
def test_what_is_kept_of_the_real_images_is_bit_for_bit_what_is_measured(
    held_out: ImageSet | None, tmp_path: Path, counted: Counted
):
    real, samples = image_set(60), RealImages(image_set(24))
    anew = figures_of_all_metrics(side(real, None, counted.network, held_out), samples)
    assert figures_of_all_metrics(side(real, tmp_path, counted.network, held_out), samples) == anew
    files = set(tmp_path.iterdir())
    second = side(real, tmp_path, counted.network, held_out)
    assert figures_of_all_metrics(second, samples) == anew
    assert set(tmp_path.iterdir()) == files
    assert set(second.cache.found) == {path.name for path in files}
    kinds = {"classifier", "features-counted-16", "floor", "ms-ssim", "newness", "patches", "real", "spread"}
    assert {path.name.rpartition("-")[0] for path in files} == kinds


def test_what_is_kept_of_one_side_of_the_input_is_not_taken_for_another(tmp_path: Path):
    def look(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3]  # of one network, others at another side

    networks = [FeatureNetwork(f"corner-{size}", look, num_features=3, side=size, digest="0123") for size in (8, 4)]
    real, samples = image_set(60), RealImages(image_set(24))
    anew = [figures_of_all_metrics(side(real, None, network), samples) for network in networks]
    assert [figures_of_all_metrics(side(real, tmp_path, network), samples) for network in networks] == anew


@pytest.mark.parametrize("change", ["seed", "image", "label", "held out"])
def test_what_is_kept_of_other_real_images_or_with_another_seed_is_not_taken(
    change: str, tmp_path: Path, counted: Counted
):
    real, samples = image_set(60), RealImages(image_set(24))
    figures_of_all_metrics(side(real, tmp_path, counted.network), samples)
    other = side(real, tmp_path, counted.network)
    if change == "seed":
        other.seed = 1
    elif change == "image":
        pixels = real.read_pixels(torch.arange(60)).clone()
        pixels[7, 0, 0, 0] ^= 255
        other.real = replace(real, read_pixels=lambda numbers: pixels[numbers])
    elif change == "label":
        other.real = replace(real, labels=torch.cat([real.labels[:-1], 1 - real.labels[-1:]]))
    else:
        other.held_out = image_set(20)
    found = figures_of_all_metrics(other, samples)
    kept = {name.rpartition("-")[0] for name in other.cache.found}
    assert kept.isdisjoint({"floor", "newness", "real"} if change == "seed" else {"floor", "newness", "real", "spread"})
    assert found == figures_of_all_metrics(replace(other, cache=Cache(None)), samples)


def test_the_classifier_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, samples = image_set(40), RealImages(image_set(12))
    first = side(real, tmp_path, None)
    expected = first.sets(samples, torch.arange(12) % 2)
    monkeypatch.setattr("gan_blocks.engine.evaluation.features.trained.train_classifier", None)
    found = side(real, tmp_path, None).sets(samples, torch.arange(12) % 2)
    assert expected is not None
    assert found is not None
    assert torch.equal(found.generated.features(), expected.generated.features())
    assert first.judge is not None
    assert first.judge.held_out_accuracy >= 0.5


def test_the_floor_is_that_of_held_out_images_or_of_some_set_aside(counted: Counted):
    real, samples = image_set(40), RealImages(image_set(30))
    labels = torch.zeros(30, dtype=torch.int64)
    sets = side(real, None, counted.network).sets(samples, labels)
    assert sets is not None
    some, other = (set(each.numbers.tolist()) for each in sets.floor)
    assert len(some) == len(other) == 20
    assert some | other == set(range(40))
    sets = side(real, None, counted.network, image_set(9)).sets(samples, labels)
    assert sets is not None
    assert [len(each) for each in sets.floor] == [40, 9]
    assert isinstance(sets.floor[1], FeatureSet)


@pytest.mark.parametrize(
    ("samples", "real", "held_out", "message"),
    [
        (5, 100, None, "--num must be at least 6 for --features, since neighborhoods of 5 are measured, but got 5."),
        (9, 11, None, "and half of them are set aside to compare with, but there are 11."),
        (9, 5, 9, "--features needs at least 6 real images"),
        (9, 9, 5, "--features needs at least 6 held-out images"),
    ],
)
def test_too_few_images_are_refused(samples: int, real: int, held_out: int | None, message: str):
    with pytest.raises(UserError) as error:
        check_feature_counts(samples, real, held_out=held_out, option="--num")
    assert message in str(error.value)
