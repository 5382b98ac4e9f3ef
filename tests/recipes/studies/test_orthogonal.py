import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.recipe.recipe import Recipe
from gan_blocks.engine.recipe.registry import registered_recipes
from gan_blocks.engine.studies.study import Study
from recipes import biggan_deep
from recipes.studies import orthogonal

FAST = ["--preset", "tiny", "--steps", "2", "--num", "12", "--seeds", "0", "1", "--truncations", "1", "0.04"]


@pytest.fixture(autouse=True)
def tiny_preset(tiny_data: Path, monkeypatch: pytest.MonkeyPatch):
    config = biggan_deep.Config(
        data=f"npz:{tiny_data}",
        resolution=16,
        num_classes=3,
        channels=8,
        latent_dim=6,
        embedding_dim=5,
        generator_widths=(1, 1, 1),
        discriminator_widths=(1, 1, 1),
        batch_size=8,
        standing_batches=2,
    )
    monkeypatch.setitem(biggan_deep.PRESETS, "tiny", lambda: config)


def results(out: Path) -> dict[str, dict[str, float]]:
    return json.loads((out / "study.json").read_text())["results"]


@pytest.mark.slow
def test_a_study_trains_measures_and_draws_each_coefficient_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    args = [*FAST, "--coefficients", "0", "0.01", "--seeds", "0", "--out", str(tmp_path)]
    trained: list[str] = []

    def train_and_stop(recipe: Recipe, argv: list[str], prog: str) -> int:
        trained.append(Path(argv[-1]).name)
        return real_train(recipe, argv, prog=prog) or (143 if len(trained) == 2 else 0)

    real_train = Recipe.main
    monkeypatch.setattr(Recipe, "main", train_and_stop)
    assert orthogonal.main(args) == 143
    assert len(results(tmp_path)) == 3
    assert not (tmp_path / "sheet_0.01.png").exists()
    first = results(tmp_path)
    assert orthogonal.main(args) == 0
    assert trained == ["coefficient_0_seed_0", "coefficient_0.01_seed_0"]
    assert len(results(tmp_path)) == 6
    assert results(tmp_path).items() > first.items()

    # 3 rows of 16 pixels fourfold with a gap of 2; 2 truncations of 3 latents, and a caption.
    with Image.open(tmp_path / "sheet_0.01.png") as sheet:
        assert sheet.height == 28 + (3 * 18 + 2) * 4  # headers, then three rows
        assert sheet.width > (6 * 18 + 2) * 4
    plain, penalized = (results(tmp_path)[f"coefficient_{c}_seed_0"]["equation_3"] for c in ("0", "0.01"))
    assert penalized < plain

    (tmp_path / "coefficient_0.01_seed_0").rename(tmp_path / "aside")  # whose steps another run has, too
    (tmp_path / "coefficient_0_seed_0").rename(tmp_path / "coefficient_0.01_seed_0")
    (tmp_path / "aside").rename(tmp_path / "coefficient_0_seed_0")
    assert orthogonal.main(args) == 2
    assert "--generator-orthogonal-penalty is 0.0 here, but the run was started with 0.01." in capsys.readouterr().err


def test_coefficients_that_differ_have_results_of_their_own():
    names = {orthogonal._key(value, 0, 1.0) for value in (0, 0.1, 0.1 + 1e-9, 1e-7)}
    assert len(names) == 4
    assert "coefficient_0_seed_0_truncation_1" in names


@pytest.mark.slow
def test_the_table_has_means_and_deviations_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert orthogonal.main([*FAST, "--coefficients", "0", "--out", str(tmp_path)]) == 0
    table = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out == table
    head, _, row = (line.strip("| ").split(" | ") for line in table.splitlines()[2:])
    assert head == ["coefficient", "runs", "equation 3", "truncation 1", "truncation 0.04"]
    assert row[:2] == ["0", "2"]
    for column, truncation in ((3, "1"), (4, "0.04")):
        seeds = [results(tmp_path)[f"coefficient_0_seed_{seed}_truncation_{truncation}"] for seed in (0, 1)]
        for shown, name in zip(row[column].split(" / "), ("agreement", "diversity"), strict=True):
            first, second = (seed[name] for seed in seeds)
            found = re.fullmatch(r"([\d.]+) \(([\d.]+)\)", shown)
            assert found is not None
            assert float(found[1]) == pytest.approx((first + second) / 2, abs=5.1e-4)
            assert float(found[2]) == pytest.approx(abs(first - second) / 2**0.5, abs=5.1e-4)


@pytest.mark.slow
def test_more_coefficients_seeds_and_truncations_may_be_added_later(tmp_path: Path):
    args = ["--preset", "tiny", "--steps", "1", "--num", "12", "--out", str(tmp_path)]
    assert orthogonal.main([*args, "--coefficients", "0", "--seeds", "0", "--truncations", "1"]) == 0
    before = results(tmp_path)
    assert orthogonal.main([*args, "--coefficients", "0", "--seeds", "0", "--truncations", "1", "2"]) == 0
    assert results(tmp_path).items() > before.items()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--coefficients", "0", "0"], "--coefficients must be one or more different numbers, but got 0 0."),
        (["--coefficients", "0", "-1"], "--coefficients must each be at least 0, but got 0 -1."),
        (["--steps", "0"], "--steps must be at least 1, but got 0."),
        (["--num", "1"], "--num must be at least 2, but got 1."),
        (["--truncations", "-1"], "--truncation must be a finite number of at least 0, but got -1.0."),
        (
            ["--recipe", "nothing"],
            f"there is no recipe nothing: name a registered one ({', '.join(registered_recipes())}), a file or a "
            "module.",
        ),
        (
            ["--preset", "nothing"],
            "--preset must be one of mnist5k-32, cifar10-32, imagenet-128, imagenet-256, imagenet-512, tiny, "
            "but got nothing.",
        ),
    ],
)
def test_rejects_what_cannot_work(args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert orthogonal.main([*args, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"orthogonal: error: {message}\n"
    assert not (tmp_path / "out").exists()


def test_a_study_is_continued_with_its_settings_alone(tmp_path: Path):
    Study(tmp_path, {"steps": 2}).result("a", lambda: {"agreement": 0.5})
    assert Study(tmp_path, {"steps": 2}).results == {"a": {"agreement": 0.5}}
    message = f"{tmp_path} holds a study with --steps 2, not 3. Name another folder."
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        Study(tmp_path, {"steps": 3})


@pytest.mark.parametrize("content", ["{", "{}"])
def test_says_when_the_results_are_damaged(content: str, tmp_path: Path):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(UserError, match=r"study\.json is damaged: "):
        Study(tmp_path, {})


def test_a_run_that_fails_ends_the_study_with_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(biggan_deep.PRESETS["tiny"](), generator_lr=1e30)
    monkeypatch.setitem(biggan_deep.PRESETS, "tiny", lambda: config)
    assert orthogonal.main([*FAST, "--coefficients", "0", "--out", str(tmp_path)]) == 2


def test_too_few_samples_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(Recipe, "main", None)
    assert orthogonal.main([*FAST, "--num", "4", "--out", str(tmp_path / "study")]) == 2
    rule = "at least 6 for 3 classes, since diversity needs two samples of a class"
    assert capsys.readouterr().err == f"orthogonal: error: --num must be {rule}, but got 4.\n"
    assert not (tmp_path / "study").exists()


def test_what_was_measured_is_said_where_it_cannot_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study = Study(tmp_path / "study", {})
    (tmp_path / "study" / "study.json").unlink()
    (tmp_path / "study" / "study.json").mkdir()
    with pytest.raises(UserError, match="was not written"):
        study.result("run", lambda: {"agreement": 0.5})
    assert json.loads(capsys.readouterr().out) == {"run": {"agreement": 0.5}}
