import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_blocks.engine.base.errors import UserError
from gan_blocks.engine.base.terminal.console import OutputError
from gan_blocks.engine.commands import evaluate
from gan_blocks.engine.commands.evaluation import samples as evaluate_samples
from gan_blocks.engine.commands.evaluation.tables import doubts
from gan_blocks.engine.data.image_set import ImageSet
from gan_blocks.engine.data.pixels import PixelLayout
from gan_blocks.engine.evaluation.pairs import PairOptions, measure_pairs, random_pairs
from gan_blocks.engine.evaluation.patches import (
    SlicedWassersteinOptions,
    measure_patches,
)
from gan_blocks.engine.evaluation.quality import QualityReport, diversity_ratio, measure_quality
from recipes import progan

GROWING = [
    *("--resolution", "16", "--initial-resolution", "16", "--widths", "6", "5", "4", "--latent-dim", "6"),
    *("--batch-size", "8", "--planned-steps", "2", "--sample-every", "0"),
]


def evaluated(run: Path, num: int = 1000, *, swd: int = 0, ms_ssim: int = 0) -> evaluate.Evaluation:
    asked = {"sliced_wasserstein": SlicedWassersteinOptions(swd=swd), "ms_ssim": PairOptions(ms_ssim=ms_ssim)}
    return evaluate.evaluate(evaluate.Options(run=run, num=num), asked)


@pytest.fixture(scope="module")
def growing_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without classes, on as many images as the run with them."""
    folder = tmp_path_factory.mktemp("growing")
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", images=rng.integers(0, 255, (60, 16, 16, 1), np.uint8), labels=np.arange(60) % 3)
    run = folder / "run"
    assert progan.RECIPE.main(["--data", f"npz:{folder / 'data.npz'}", *GROWING, "--run-dir", str(run)]) == 0
    return run


def test_a_run_without_classes_is_measured_without_a_classifier(
    growing_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gan_blocks.engine.evaluation.quality.train_classifier", None)
    assert evaluate.main(["--run", str(growing_run), "--num", "12", "--swd", "10"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:5]] == ["12", "diversity", "novelty", "sliced", "16x16"]
    assert "spread of all images" in printed[1]
    found = json.loads((growing_run / "evaluation.json").read_bytes())
    assert found["agreement"] is None
    assert found["agreement_by_class"] == {}
    assert found["diversity"] > 0
    assert found["sliced_wasserstein_images"] == 10
    for row in ("samples", "real", "blurred"):
        distances = found[f"sliced_wasserstein_{row}"]
        assert list(distances) == ["16", "mean"]
        assert distances["16"] == distances["mean"] > 0
    report = (growing_run / "report.html").read_text()
    assert f"16: {found['sliced_wasserstein_samples']['16']:.4g}" in report


def test_a_run_with_classes_has_no_patches_unless_asked(tiny_run: Path):
    plain = evaluate.evaluate(evaluate.Options(run=tiny_run, num=6))
    assert list(plain.reports) == list(evaluated(tiny_run, num=6).reports) == ["quality"]
    assert plain.reports["quality"].agreement is not None
    assert not any("sliced" in name for name in plain.as_dict())
    with_patches = evaluated(tiny_run, num=6, swd=5)
    assert list(with_patches.reports) == ["quality", "sliced_wasserstein"]
    assert with_patches.reports["quality"] == plain.reports["quality"]
    assert len(with_patches.lines()) == len(plain.lines()) + 5


def test_pairs_are_compared_where_they_are_asked_for(tiny_run: Path):
    found = evaluated(tiny_run, num=6, ms_ssim=9)
    assert list(found.reports) == ["quality", "ms_ssim"]
    pairs = found.reports["ms_ssim"]
    assert pairs.pairs == 9
    assert 0 <= pairs.real < 1
    assert found.as_dict().items() >= {"ms_ssim_pairs": 9, "ms_ssim_samples": pairs.samples}.items()
    assert found.lines()[-1] == pairs.lines()[0]


def test_quality_of_one_class_is_that_of_all_images(rng: torch.Generator):
    generated, real = torch.rand(8, 1, 4, 4, generator=rng), torch.rand(20, 1, 4, 4, generator=rng)
    labels, real_labels = torch.zeros(8, dtype=torch.int64), torch.zeros(20, dtype=torch.int64)
    report = measure_quality(generated, labels, real, real_labels, num_classes=1, seed=0)
    assert report.agreement is report.classifier_accuracy is None
    assert report.diversity == diversity_ratio(generated, labels, real, real_labels)
    assert len(report.lines()) == 3


def test_the_pairs_of_a_large_class_are_those_of_a_part(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gan_blocks.engine.evaluation.quality.MAX_PAIRED", 4)
    real, labels = torch.rand(10, 1, 4, 4, generator=rng), torch.zeros(10, dtype=torch.int64)
    part = real[[0, 3, 6, 9]]
    assert diversity_ratio(part, labels[:4], real, labels) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"swd": -1}, "--swd must be at least 0, but got -1."),
        ({"ms_ssim": -1}, "--ms-ssim must be at least 0, but got -1."),
        ({"num": 10, "swd": 11}, "--swd must be at most the number of samples, 10, but got 11."),
        (
            {"num": 40, "swd": 31},
            "--swd 31 needs 62 real images, half of them to compare the other half with, but there are 60.",
        ),
    ],
)
def test_rejects_sets_that_are_not_there_before_anything_is_drawn(
    growing_run: Path, options: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(evaluate_samples, "draw_samples", None)
    with pytest.raises(UserError) as error:
        evaluated(growing_run, **options)
    assert str(error.value) == message


def test_rejects_classes_of_one_sample_before_anything_is_drawn(tiny_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluate_samples, "draw_samples", None)
    with pytest.raises(UserError) as error:
        evaluated(tiny_run, num=5)
    rule = "at least 6 for 3 classes, since diversity needs two samples of a class"
    assert str(error.value) == f"--num must be {rule}, but got 5."


def test_rejects_pairs_that_are_not_there():
    images = torch.zeros(2, 1, 24, 24)
    with pytest.raises(UserError) as error:
        measure_pairs(images, torch.zeros(2).long(), images, torch.zeros(2).long(), pairs=1, seed=0)
    assert str(error.value) == "--ms-ssim needs a multiple of 16 pixels, but the images have 24x24."
    with pytest.raises(UserError) as error:
        random_pairs(torch.arange(3), 2, torch.Generator())
    assert str(error.value) == "--ms-ssim compares images of one class, but no class has two."


@pytest.mark.parametrize("size", [8, 28, 48])
def test_rejects_sizes_without_a_pyramid(size: int):
    with pytest.raises(UserError) as error:
        measure_patches(torch.zeros(4, 1, size, size), torch.zeros(8, 1, size, size), images=4, seed=0)
    assert str(error.value) == f"--swd needs images of 16, 32, 64, ... pixels, but these have {size}x{size}."


def test_the_evaluation_says_of_what_it_is(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    newest = run / "checkpoints" / "step_000003"
    shutil.copytree(newest, run / "checkpoints" / "step_000004")
    (run / "checkpoints" / "step_000004" / "ema.safetensors").write_bytes(b"torn")
    capsys.readouterr()
    assert evaluate.main(["--run", str(run), "--num", "6", "--seed", "5", "--truncation", "0.7"]) == 0
    assert "step_000004 is damaged" in capsys.readouterr().out
    found = json.loads((run / "evaluation.json").read_text())
    told = {"weights": "checkpoints/step_000003/ema.safetensors", "seed": 5, "truncation": 0.7, "truncation_by": None}
    assert {name: found[name] for name in told} == told
    assert found["sampling_precision"] == "fp32"
    assert "checkpoints/step_000003/ema.safetensors" in (run / "report.html").read_text()


def with_images_of_two_classes(folder: Path) -> str:
    """Data for a run of three classes: none of class 1, and as many of the others as before."""
    rng = np.random.default_rng(0)
    np.savez(folder / "two.npz", images=rng.integers(0, 255, (40, 16, 16, 1), np.uint8), labels=np.arange(40) % 2 * 2)
    return f"npz:{folder / 'two.npz'}"


def test_classes_without_real_images_are_left_out(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = evaluate.Options(run=tiny_run, num=4, data=with_images_of_two_classes(tmp_path))
    capsys.readouterr()
    drawn = evaluate_samples.draw(options, {})
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "1 of 3 classes have no images, such as 1"
    assert said[1].endswith("is not what the run has learned from: the class 1 had 20 images, and has 0 now.")
    assert said[2:] == ["Left out, for want of real images: 1 of 3 classes, such as class 1."]
    assert drawn.labels.tolist() == [0, 0, 2, 2]
    assert list(evaluate._measure({}, drawn).as_dict()["agreement_by_class"]) == ["0", "2"]


@pytest.mark.parametrize(("asked", "drawn"), [(None, 9), (7, 7)])
def test_without_a_number_there_are_two_samples_of_each_class(
    asked: int | None, drawn: int, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(evaluate_samples, "DEFAULT_NUM", 9)
    assert len(evaluate_samples.draw(evaluate.Options(run=tiny_run, num=asked), {}).images) == drawn
    monkeypatch.setattr(evaluate_samples, "DEFAULT_NUM", 2)
    assert len(evaluate_samples.draw(evaluate.Options(run=tiny_run), {}).images) == 6


def test_many_samples_are_kept_on_the_disk_and_give_the_same_figures(tiny_run: Path, monkeypatch: pytest.MonkeyPatch):
    options = evaluate.Options(run=tiny_run, num=70)  # two batches
    in_memory = evaluate_samples.draw(options, {}).images
    monkeypatch.setattr(evaluate_samples, "IN_MEMORY", 1024)
    monkeypatch.setattr(evaluate_samples, "draw_samples", None)
    on_disk = evaluate_samples.draw(options, {}).images
    assert not isinstance(on_disk, torch.Tensor)
    assert torch.equal(on_disk[torch.arange(70)], in_memory)
    with pytest.raises(
        UserError, match=r"^--num must be at most [\d,]+, for which there is room in \S+, but got \d+\.$"
    ):
        evaluate.evaluate(evaluate.Options(run=tiny_run, num=10**15))


def test_real_images_without_two_of_a_class_are_refused_before_anything_is_drawn(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    np.savez(tmp_path / "one.npz", images=np.zeros((3, 16, 16, 1), np.uint8), labels=np.arange(3))
    monkeypatch.setattr(evaluate_samples, "draw_samples", None)
    with pytest.raises(UserError, match=r"^No class has two real images, so diversity cannot be measured\.$"):
        evaluate.evaluate(evaluate.Options(run=tiny_run, data=f"npz:{tmp_path / 'one.npz'}"))


def test_a_run_that_is_still_growing_is_told_before_anything_is_drawn(
    growing_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(evaluate_samples, "draw_samples", None)
    monkeypatch.setattr(evaluate_samples, "drawn_shape", lambda trained: (1, 4, 4))
    with pytest.raises(UserError, match=r"^Generated images are 1x4x4 but real ones 1x16x16 .* still to grow\.$"):
        evaluate.evaluate(evaluate.Options(run=growing_run))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ms_ssim": 2**63 - 1}, f"--ms-ssim must be at most 10,000,000, but got {2**63 - 1}."),
        (
            {"num": 2},
            "--num must be at least 6 for 3 classes, since diversity needs two samples of a class, but got 2.",
        ),
        ({"seed": 2**64}, f"--seed must be a whole number of 64 bits, but got {2**64}."),
        ({"threads": 0}, "--threads must be from 1 to 1,024, but got 0."),
    ],
)
def test_sizes_are_checked_before_anything_is_drawn(
    options: dict[str, int], message: str, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(evaluate_samples, "draw_samples", None)
    pairs = options.pop("ms_ssim", 0)
    with pytest.raises(UserError) as error:
        evaluate.evaluate(evaluate.Options(run=tiny_run, **options), {"ms_ssim": PairOptions(ms_ssim=pairs)})
    assert str(error.value) == message


def test_figures_outlive_a_folder_that_cannot_be_written_and_a_console_that_is_gone(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "evaluation.json").unlink(missing_ok=True)
    (run / "evaluation.json").mkdir()  # in the place of the file
    found = evaluate.evaluate(evaluate.Options(run=run, num=6))
    monkeypatch.setattr(evaluate, "_measure", lambda *args: found)
    capsys.readouterr()
    assert evaluate.main(["--run", str(run), "--num", "6"]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines() == found.lines()
    message = rf"evaluate: error: {run}/evaluation.json was not written: .*\. The figures above are not saved\.\n"
    assert re.fullmatch(message, err)

    def full(*args: object, **options: object) -> None:
        raise OutputError("No space left on device")

    (run / "evaluation.json").rmdir()
    monkeypatch.setattr(evaluate, "print", full, raising=False)
    assert evaluate.main(["--run", str(run), "--num", "6"]) == 2
    assert json.loads((run / "evaluation.json").read_text())["num_generated"] == 6


def quality_report(count: int, accuracy: float | None) -> QualityReport:
    return QualityReport(count, 60, accuracy, None if accuracy is None else 0.3, 1.0, 1.0, {})


def labeled(labels: list[int]) -> ImageSet:
    return ImageSet(lambda numbers: numbers, torch.tensor(labels), ("a", "b", "c"), PixelLayout(4, 1))


@pytest.mark.parametrize(
    ("count", "accuracy", "said"),
    [
        (1000, 0.9, []),
        (1000, None, []),
        (
            12,
            0.9,
            ["Note: 12 samples are few: these figures vary much from seed to seed; 1,000 or more tell runs apart."],
        ),
        (
            1000,
            0.4,
            [
                "Note: the classifier finds the class of 40.0% of unseen real images, where chance finds 33.3%: "
                "its agreement says nothing."
            ],
        ),
    ],
)
def test_figures_that_say_little_are_told_so_in_a_line(count: int, accuracy: float | None, said: list[str]):
    real = labeled([0, 1, 2] * 20)
    assert list(doubts({"quality": quality_report(count, accuracy)}, real)) == said


def test_few_samples_are_said_and_change_no_figure(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    assert evaluate.main(["--run", str(tiny_run), "--num", "12"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 1
    assert notes[0].startswith("Note: 12 samples are few: ")
