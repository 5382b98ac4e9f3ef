"""A recipe outside of the project: trained, killed, resumed, sampled, evaluated, described, exported, distributed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gan_blocks.engine import find_recipe, load_trained
from gan_blocks.engine.commands import console
from tests.conftest import write_tiny_data
from tests.engine.own_gan import CODE, ROOT, SMALL, run, write_own_gan, write_own_package

CONSOLE = ("-m", "gan_blocks.engine.commands")
MARKER = "from pathlib import Path; Path('imported').touch()\n"


def newest(run_folder: Path) -> Path:
    return sorted((run_folder / "checkpoints").iterdir())[-1]


def hashes(run_folder: Path) -> dict[str, str]:
    files = json.loads((newest(run_folder) / "MANIFEST.json").read_bytes())["files"]
    return {name: entry["xxh3_128"] for name, entry in files.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with my_gan.py, data, and a run of 12 steps."""
    folder = tmp_path_factory.mktemp("own")
    write_own_gan(folder)
    write_tiny_data(folder)
    run("my_gan.py", *SMALL, "--data", "npz:tiny.npz", "--steps", "12", "--run-dir", "whole", cwd=folder)
    return folder


def test_the_file_is_short():
    assert len(CODE.splitlines()) <= 80


def test_the_run_says_which_file_made_it(place: Path):
    saved = json.loads((place / "whole" / "config.json").read_bytes())
    digest = hashlib.sha256((place / "my_gan.py").read_bytes()).hexdigest()
    assert saved["recipe"] == "my_gan:RECIPE"
    assert saved["recipe_file"] == {"path": str(place / "my_gan.py"), "sha256": digest}


@pytest.mark.slow
def test_killed_at_any_moment_and_typed_again_it_trains_to_the_same_bytes(place: Path):
    words = [sys.executable, "my_gan.py", *SMALL, "--data", "npz:tiny.npz", "--run-dir", "killed"]
    words += ["--checkpoint-every", "2", "--steps", "12"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, cwd=place, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(place.glob("killed/checkpoints/step_*[0-9]/MANIFEST.json")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(*words[1:], cwd=place)
    assert newest(place / "killed").name == newest(place / "whole").name == "step_000012"
    assert hashes(place / "killed") == hashes(place / "whole")


@pytest.mark.slow
def test_the_console_trains_it_to_the_same_bytes_from_another_folder(place: Path, tmp_path: Path):
    data = ("--data", f"npz:{place / 'tiny.npz'}")
    run(*CONSOLE, "train", str(place / "my_gan.py"), *SMALL, *data, "--steps", "12", "--run-dir", "run", cwd=tmp_path)
    tensors = [load_file(newest(folder) / "ema.safetensors") for folder in (tmp_path / "run", place / "whole")]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.mark.slow
def test_it_is_sampled_evaluated_searched_described_and_listed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    named = ("--run", "whole", "--recipe", "my_gan.py")
    assert "12 samples from" in run(*CONSOLE, "sample", *named, "--num", "12", "--out", "s.npz", cwd=place)
    with np.load(place / "s.npz") as drawn:
        assert drawn["images"].shape == (12, 16, 16, 1)
    monkeypatch.chdir(place)
    monkeypatch.delitem(sys.modules, "my_gan", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    cases = [
        (("evaluate", *named, "--num", "6"), "agreement"),
        (("neighbors", *named, "--num", "3"), "nearest training image"),
        (("describe", "my_gan.py", "--width", "8", "--num-classes", "3"), "layers.4"),
        (("presets", "my_gan.py"), "Parameters of G"),
    ]
    for words, shown in cases:
        assert console.main(words) == 0
        assert shown in capsys.readouterr().out
    assert (place / "whole" / "evaluation.json").is_file()


def test_its_generator_exports(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "my_gan", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    recipe = find_recipe(str(place / "my_gan.py"))
    trained = load_trained(run=place / "whole", weights=None, device=torch.device("cpu"), recipe=recipe)
    z, labels = torch.randn(2, 4), torch.tensor([0, 2])
    exported = torch.export.export(trained.average, (z, labels)).module()
    assert torch.equal(exported(z, labels), trained.average(z, labels))


@pytest.mark.slow
def test_two_processes_train_as_one(place: Path):
    words = ("my_gan.py", *SMALL, "--data", "npz:tiny.npz", "--steps", "3", "--precision", "fp64")
    run(*words, "--run-dir", "one", cwd=place)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run(*launcher, *words, "--run-dir", "two", cwd=place)
    for part in ("generator", "discriminator", "ema"):
        one, two = (load_file(newest(place / name) / f"{part}.safetensors") for name in ("one", "two"))
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_package_that_registers_it_needs_no_file(place: Path, tmp_path: Path):
    package = write_own_package(tmp_path)
    data = ("--data", f"npz:{place / 'tiny.npz'}")
    run(*CONSOLE, "train", "my_gan", *SMALL, *data, "--steps", "12", "--run-dir", "run", cwd=tmp_path, path=package)
    assert json.loads((tmp_path / "run" / "config.json").read_bytes())["recipe"] == "my_package.my_gan:RECIPE"
    run(*CONSOLE, "sample", "--run", "run", "--out", "sheet.png", cwd=tmp_path, path=package)
    tensors = [load_file(newest(folder) / "ema.safetensors") for folder in (tmp_path / "run", place / "whole")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "--run", "whole"),
        ("sample", "walk", "--run", "whole"),
        ("sample", "--weights", "ema.safetensors"),
        ("evaluate", "--run", "whole"),
        ("neighbors", "--run", "whole"),
        ("convert", "--to", "biggan-pytorch", "--run", "whole"),
        ("train", "biggan_deep", "--resume", "whole"),
        ("train", "biggan_deep", "--init-from", "whole"),
    ],
    ids=" ".join,
)
def test_nothing_is_imported_because_a_run_names_it(
    place: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    (tmp_path / "whole").symlink_to(place / "whole")
    (tmp_path / "ema.safetensors").symlink_to(newest(place / "whole") / "ema.safetensors")
    (tmp_path / "my_gan.py").write_text(MARKER)  # which an import would find
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_gan", raising=False)
    assert console.main(words) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert "my_gan" in said
    assert not (tmp_path / "imported").exists()
    assert "my_gan" not in sys.modules
    if words[0] in ("sample", "evaluate", "neighbors"):
        source = "ema.safetensors" if "--weights" in words else "whole"
        made_by = f"my_gan:RECIPE ({place / 'my_gan.py'})"
        assert said.endswith(f"error: {source} was made by {made_by}; add --recipe FILE_OR_MODULE if you trust it.")


@pytest.mark.slow
def test_another_package_named_recipes_does_not_disturb_the_console(place: Path, tmp_path: Path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "__init__.py").write_text(MARKER)
    write_own_gan(tmp_path)
    script = Path(sys.executable).with_name("gan-blocks")
    if not script.exists():
        pytest.skip("the console script gan-blocks is not installed")
    for words in (["presets", "sngan"], ["presets", "my_gan.py"], ["describe", "sngan"]):
        done = subprocess.run([script, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()
