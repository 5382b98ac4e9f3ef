"""The command, from files to runs and back, and trainings that start from converted weights."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gan_blocks.engine.commands import evaluate, sample
from gan_blocks.engine.runs.folder import RunFolder
from recipes import biggan_deep, convert, dcgan
from recipes.layouts.huggingface_biggan_deep import export_huggingface_biggan_deep, huggingface_config
from recipes.layouts.key_map import expected_state
from tests.recipes.weight_files import BIGGAN_PYTORCH, HUGGINGFACE, PLAIN, Canary


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported")
    assert convert.main(["--to", "biggan-pytorch", "--run", str(tiny_run), "--out", str(path)]) == 0
    return path


@pytest.fixture
def converted(exported: Path, tmp_path: Path) -> Path:
    """The same networks as a run again, by way of the other layout."""
    path, files = tmp_path / "converted", []
    for network in ("generator", "discriminator"):
        files += [f"--{network}", str(exported / f"{network}.safetensors")]
    options = ["--config", str(exported / "config.json"), "--run-dir", str(path)]
    assert convert.main([*BIGGAN_PYTORCH, *files, *options]) == 0
    return path


def draw(run: Path, out: Path, *options: str) -> np.ndarray:
    assert sample.main(["--run", str(run), "--out", str(out), "--num", "6", *options]) == 0
    with np.load(out) as arrays:
        return arrays["images"]


def test_a_run_draws_the_same_after_a_journey_through_another_layout(tiny_run: Path, converted: Path, tmp_path: Path):
    before, after = draw(tiny_run, tmp_path / "before.npz"), draw(converted, tmp_path / "after.npz")
    assert np.ptp(before) > 10
    assert np.abs(before.astype(int) - after).max() <= 1
    trained, returned = checkpoint(tiny_run, "discriminator"), checkpoint(converted, "discriminator")
    assert trained.keys() == returned.keys()
    for key, value in trained.items():
        assert torch.equal(returned[key], value) or key.endswith((".0.u", ".0.v"))


def test_a_converted_run_can_be_evaluated(converted: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]):
    assert evaluate.main(["--run", str(converted), "--num", "6", "--data", f"npz:{tiny_data}"]) == 0
    assert "agreement" in capsys.readouterr().out.lower()
    assert (converted / "report.html").is_file()


def test_a_converted_run_cannot_be_resumed_but_started_from(
    converted: Path, tiny_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert biggan_deep.RECIPE.main(["--resume", str(converted)]) == 2
    assert f"no training to continue: start a new run with --init-from {converted}." in capfd.readouterr().err
    new = ["--init-from", str(converted), "--data", f"npz:{tiny_data}", "--run-dir", str(tmp_path / "new")]
    small = ["--batch-size", "8", "--standing-batches", "2"]
    assert biggan_deep.RECIPE.main([*new, *small, "--steps", "1", "--discriminator-lr", "1e-4"]) == 0
    assert "with fresh optimizers" in capfd.readouterr().err
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["preset"] == "fine-tuned"
    assert (config["config"]["num_classes"], config["config"]["discriminator_lr"]) == (3, 1e-4)
    assert biggan_deep.RECIPE.main(["--resume", str(tmp_path / "new"), "--steps", "2"]) == 0
    assert "Continuing after step 1" in capfd.readouterr().err


def checkpoint(run: Path, part: str) -> dict[str, torch.Tensor]:
    (folder,) = (run / "checkpoints").iterdir()
    return load_file(folder / f"{part}.safetensors")


def test_with_another_class_count_the_embeddings_alone_are_fresh(
    converted: Path, tiny_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Learning rates of next to nothing leave what was loaded visible in the first checkpoint."""
    still = ["--generator-lr", "1e-30", "--discriminator-lr", "1e-30", "--batch-size", "8", "--standing-batches", "2"]
    new = ["--init-from", str(converted), "--data", f"npz:{tiny_data}", "--run-dir", str(tmp_path / "new")]
    assert biggan_deep.RECIPE.main([*new, *still, "--num-classes", "5", "--steps", "1"]) == 0
    said = capfd.readouterr().err
    kept = "starts from fresh weights, all else is kept."
    assert f"3 classes there, 5 here: embedding of the generator {kept}" in said
    assert f"3 classes there, 5 here: head.embedding of the discriminator {kept}" in said
    for part in ("generator", "discriminator", "ema"):
        before, after = checkpoint(converted, part), checkpoint(tmp_path / "new", part)
        for key, value in before.items():
            if "embedding" in key:
                assert 5 in after[key].shape or key.endswith(".v")
            elif not key.endswith((".u", ".v", ".running_mean", ".running_var")):
                # Nothing moves by more than its rate; a bias of 0 has digits for that.
                assert (after[key] - value).abs().max() <= 1e-30, key


def test_without_a_discriminator_a_training_starts_with_a_fresh_one(
    exported: Path, tiny_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    path = tmp_path / "alone"
    generator = ["--generator", str(exported / "generator.safetensors")]
    assert convert.main([*BIGGAN_PYTORCH, *generator, "--run-dir", str(path)]) == 0
    assert "There is no discriminator: a training with --init-from starts with a fresh one." in capfd.readouterr().out
    new = ["--init-from", str(path), "--data", f"npz:{tiny_data}", "--run-dir", str(tmp_path / "new")]
    assert biggan_deep.RECIPE.main([*new, "--batch-size", "8", "--standing-batches", "2", "--steps", "1"]) == 0
    assert "There is no discriminator there: it starts from fresh weights." in capfd.readouterr().err


def test_networks_that_do_not_fit_name_their_layers_and_leave_no_folder(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    new = ["--init-from", str(tiny_run), "--embedding-dim", "4", "--run-dir", str(tmp_path / "new")]
    assert biggan_deep.RECIPE.main(new) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert "wrong shapes: " in error
    assert "blocks.0.norm3.bias.parametrizations.weight.original (2, 11) instead of (2, 10) and " in error
    assert not (tmp_path / "new").exists()


def test_init_from_excludes_a_preset(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    assert biggan_deep.RECIPE.main(["--init-from", str(tiny_run), "--preset", "cifar10-32"]) == 2
    assert "so --preset cannot be given with it" in capsys.readouterr().err


def test_the_eps_of_the_files_is_asked_for_read_or_guessed_and_said(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A config may be JSON, with the options inside or not, or what that code pickles beside its weights."""
    g = ["--generator", str(exported / "generator.safetensors")]
    options = {"BN_eps": 3e-5, "dim_z": 6, "G_activation": torch.nn.ReLU(inplace=True)}
    torch.save({"itr": 7, "config": options}, tmp_path / "state_dict.pth")
    (tmp_path / "inside.json").write_text(json.dumps({"config": {"BN_eps": 3e-5}}))
    for number, (words, blocks, last, said) in enumerate(
        [
            ([], 1e-5, 1e-5, "as that code's launch scripts have it, since the files do not say (--bn-eps); in"),
            (["--config", str(exported / "config.json")], 1e-4, 1e-5, "is 0.0001, as BN_eps in the config says; in"),
            (["--config", str(tmp_path / "state_dict.pth")], 3e-5, 1e-5, "is 3e-05, as BN_eps in the config says; in"),
            (
                ["--config", str(tmp_path / "inside.json"), "--last-bn-eps", "2e-5"],
                3e-5,
                2e-5,
                "last norm 2e-05, as --",
            ),
            (["--bn-eps", "1e-3"], 1e-3, 1e-5, "is 0.001, as --bn-eps says; in G's last norm 1e-05, as always"),
        ]
    ):
        path = tmp_path / f"run{number}"
        assert convert.main([*BIGGAN_PYTORCH, *g, *words, "--run-dir", str(path)]) == 0
        assert said in capsys.readouterr().out
        config = json.loads((path / "config.json").read_text())["config"]
        assert (config["bn_eps"], config["last_bn_eps"]) == (blocks, last)


def test_an_export_that_its_code_cannot_build_is_told(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert convert.main(["--to", "biggan-pytorch", "--run", str(tiny_run), "--out", str(tmp_path)]) == 0
    note = "BigGAN-PyTorch itself cannot build these networks from config.json: its images are RGB; it has no such G; "
    assert f"\n{note}it has no such D.\n" in "\n" + capsys.readouterr().out
    options = json.loads((tmp_path / "config.json").read_text())
    assert (options["model"], options["G_depth"], options["n_classes"], options["BN_eps"]) == ("BigGANdeep", 2, 3, 1e-4)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("weights", "--config {path} must hold options, such as a JSON object, but holds tensors or a single value."),
        ("code", "{path} is damaged or holds more than tensors: it could run code, and is not read."),
        ("list", "--config {path} must hold options, such as a JSON object, but holds tensors or a single value."),
    ],
)
def test_a_config_that_holds_something_else_is_one_line(
    kind: str, error: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "state_dict.pth"
    torch.save({"weights": PLAIN, "code": {"config": Canary(tmp_path / "canary")}, "list": [1]}[kind], path)
    files = ["--generator", str(exported / "generator.safetensors"), "--config", str(path)]
    assert convert.main([*BIGGAN_PYTORCH, *files]) == 2
    assert capsys.readouterr().err == f"convert: error: {error.format(path=path)}\n"
    assert not (tmp_path / "canary").exists()


@pytest.fixture
def huggingface(tmp_path: Path) -> Path:
    """Random weights in the layout of the released generators, with tables that are not the same at any truncation."""
    small = replace(biggan_deep.imagenet_128(), channels=8, num_classes=3, latent_dim=6, embedding_dim=6)
    rng = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(value.shape, generator=rng) + 0.1
        for name, value in expected_state(biggan_deep.RECIPE.build_generator, small).items()
    }
    tensors = export_huggingface_biggan_deep(state, config=small)
    for name in [name for name in tensors if name.endswith("running_means")]:
        tensors[name] = torch.randn(tensors[name].shape, generator=rng)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(small)))
    return tmp_path / "pytorch_model.bin"


@pytest.mark.slow
def test_tables_of_statistics_follow_the_truncation_of_the_samples(
    huggingface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path, config = tmp_path / "run", huggingface.with_name("config.json")
    options = ["--generator", str(huggingface), "--config", str(config), "--run-dir", str(path)]
    assert convert.main([*HUGGINGFACE, *options]) == 0
    from gan_blocks.engine.sampling.samples import ready_generator, truncated
    from gan_blocks.engine.sampling.trained import load_trained

    state = torch.load(huggingface, weights_only=True)
    trained = load_trained(run=path, weights=None, device=torch.device("cpu"))
    for truncation, row in ((0.5, 25), (None, 50)):
        model = ready_generator(truncated(trained, truncation))
        assert torch.equal(model.norm.running_mean, state["generator.bn.running_means"][row])
    for wrong in (["--truncation", "2"], ["--truncation", "0.5", "--truncation-by", "threshold"]):
        assert sample.main(["--run", str(path), *wrong]) == 2
        assert "its tables of statistics are for --truncation-by scaled from 0 to 1." in capsys.readouterr().err
    out = tmp_path / "back"
    out.mkdir()
    (out / "discriminator.safetensors").touch()
    assert convert.main(["--to", "huggingface-biggan-deep", "--run", str(path), "--out", str(out)]) == 2
    (out / "discriminator.safetensors").unlink()
    assert list(out.iterdir()) == []
    assert convert.main(["--to", "huggingface-biggan-deep", "--run", str(path), "--out", str(out)]) == 0
    back = load_file(out / "generator.safetensors")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())
    assert json.loads((out / "config.json").read_text()) == json.loads(config.read_text())


@pytest.mark.parametrize(
    ("layout", "name", "tensor", "problem"),
    [
        (BIGGAN_PYTORCH, "shared.weight", torch.zeros(3), "missing keys: "),
        (BIGGAN_PYTORCH, "linear.weight", torch.zeros(()), "missing keys: "),
        (HUGGINGFACE, "generator.conv_to_rgb.weight_orig", torch.zeros(0, 2), "missing keys: "),
        (BIGGAN_PYTORCH, "linear.bias", torch.zeros(96, dtype=torch.int64), "linear.bias in torch.int64 instead of "),
    ],
)
def test_tensors_of_any_shape_and_kind_are_one_line(
    layout: list[str],
    name: str,
    tensor: torch.Tensor,
    problem: str,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    state = {**load_file(exported / "generator.safetensors"), name: tensor}
    torch.save(state, tmp_path / "G.pth")
    assert convert.main([*layout, "--generator", str(tmp_path / "G.pth"), "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("convert: error: the generator (layout ")
    assert problem in said
    assert said.count("\n") == 1
    assert len(said) < 2500
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "--config {path} must hold a JSON object."),
        ("[" * 100_000, "--config {path} must hold a JSON object."),
        ("[1]", "--config {path} must hold a JSON object."),
        (
            '{"dim_z": ' + "[" * 900 + "]" * 900 + "}",
            "does not fit its config: dim_z is [[[[[[[...]]]]]]] there, not 6.",
        ),
        (json.dumps({"dim_z": "1" * 5000}), f"does not fit its config: dim_z is {'1' * 60} there, not 6."),
        (json.dumps({"ch": "1" * 5000}), f"does not fit its config: ch is {'1' * 60} there, not 8."),
        (None, "--config {path} is no regular file."),
    ],
)
def test_a_config_that_makes_no_sense_is_one_line(
    content: str | None, error: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "config.json"
    os.mkfifo(path) if content is None else path.write_text(content)
    files = ["--generator", str(exported / "generator.safetensors"), "--config", str(path)]
    assert convert.main([*BIGGAN_PYTORCH, *files]) == 2
    said = capsys.readouterr().err
    assert said.endswith(f"{error.format(path=path)}\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], "give one of --from LAYOUT and --to LAYOUT."),
        (BIGGAN_PYTORCH, "--from needs --generator FILE."),
        (["--to", "biggan-pytorch"], "--to needs --run RUN."),
        ([*HUGGINGFACE, "--generator", "g", "--discriminator", "d"], "leave out --discriminator."),
        ([*HUGGINGFACE, "--generator", "g", "--truncation", "2"], "--truncation must be from 0 to 1"),
        (
            [*BIGGAN_PYTORCH, "--generator", "g", "--truncation", "0.5"],
            "--truncation goes only with --from huggingface-",
        ),
        ([*HUGGINGFACE, "--generator", "g", "--bn-eps", "1e-4"], "--bn-eps goes only with --from biggan-pytorch"),
        (
            ["--to", "biggan-pytorch", "--run", "r", "--last-bn-eps", "1e-4"],
            "--last-bn-eps goes only with --from biggan-",
        ),
        (
            [*BIGGAN_PYTORCH, "--generator", "g", "--bn-eps", "0"],
            "--bn-eps must be a number greater than 0, but got 0.",
        ),
        ([*BIGGAN_PYTORCH, "--generator", "g", "--bn-eps", "nan"], "--bn-eps must be a number greater than 0, but got"),
    ],
)
def test_rejects_options_that_do_not_go_together(options: list[str], error: str, capsys: pytest.CaptureFixture[str]):
    assert convert.main(options) == 2
    assert error in capsys.readouterr().err


def test_a_run_that_a_layout_does_not_know_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    RunFolder.create_at(tmp_path / "run", dcgan.RECIPE.identity, "tiny", {})
    for layout in ("biggan-pytorch", "huggingface-biggan-deep"):
        assert convert.main(["--to", layout, "--run", str(tmp_path / "run")]) == 2
        message = f"the layout {layout} has no networks of dcgan."
        assert capsys.readouterr().err == f"convert: error: {message}\n"
